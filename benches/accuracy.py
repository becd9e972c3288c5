"""How near components are to the exact principal components of the same rows."""

import json
from functools import cache

import numpy as np
from safetensors import safe_open

from programs import COMPONENTS


class ByModule:
    """Tensors that several modules share, as reference.py saves them."""

    def __init__(self, path):
        self.file = safe_open(path, "numpy")
        self.owners = json.loads(self.file.metadata()["owners"])

    def get(self, module):
        return self.file.get_tensor(self.owners[module])


class Truth(ByModule):
    """The exact principal components of every module's input, from its covariance."""

    def __init__(self, path):
        super().__init__(path)
        self.decomposed = cache(self.decompose)

    def decompose(self, owner):
        """The covariance, its leading variances, and the directions as rows."""
        covariance = self.file.get_tensor(owner)
        values, vectors = np.linalg.eigh(covariance)
        return covariance, values[::-1][:COMPONENTS], vectors.T[::-1][:COMPONENTS].copy()

    def captured(self, module, directions):
        """The variance in the span of the directions, as a share of the most that as many can capture."""
        covariance, values, _ = self.decomposed(self.owners[module])
        basis, _ = np.linalg.qr(directions.T.astype(np.float64))
        return float(np.sum(basis * (covariance @ basis)) / np.sum(values[: basis.shape[1]]))

    def cosine(self, module, directions):
        return median_cosine(directions, self.decomposed(self.owners[module])[2])


@cache
def truth(path):
    """The truth in a file, decomposed once however often it is compared with."""
    return Truth(path)


def median_cosine(a, b):
    """The median |cosine| of the rows of A and B of the same index."""
    a, b = (rows.astype(np.float64) / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (a, b))
    return float(np.median(np.abs(np.sum(a * b, axis=1))))


def by_group(report):
    """The first module of every group of modules that read the same tensor."""
    first = {}
    for layer in report["layers"]:
        first.setdefault(layer["group"], layer["module"])
    return first


def directions(report):
    """The rows of every group's A."""
    with safe_open(report["adapter"], "numpy") as file:
        return {
            group: file.get_tensor(f"base_model.model.{module}.lora_A.weight")
            for group, module in by_group(report).items()
        }


def compare(ours, exact, theirs=None):
    """Captured variance and |cosine| of every group, of eva-onnx and, if it ran, of PEFT."""
    exactly, found = truth(exact["tensors"]), directions(ours)
    peft = ByModule(theirs["tensors"]) if theirs else None
    measure = lambda module, rows: {"captured": exactly.captured(module, rows), "cosine": exactly.cosine(module, rows)}
    groups = []
    for group, module in by_group(ours).items():
        row = {"group": group, "module": module, "ours": measure(module, found[group])}
        if peft:
            row["peft"] = measure(module, peft.get(module)) | {"rows": theirs["rows"][module]}
        groups.append(row)
    return {"rows": exact["rows"], "groups": groups}


def summary(compared, program):
    """Captured variance, worst and mean of all groups, and the median of their |cosine|."""
    found = [row[program] for row in compared["groups"] if program in row]
    captured = [entry["captured"] for entry in found]
    return min(captured), float(np.mean(captured)), float(np.median([entry["cosine"] for entry in found]))
