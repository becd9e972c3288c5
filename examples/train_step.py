"""Trains FOLDER of `eva-onnx train MODEL --data ROWS --emit step-graph --out FOLDER`: `train_step.py FOLDER ROWS STEPS RATE`.

Rows are JSON lines with `input_ids`. FOLDER/theta.f32 is replaced, and `eva-onnx convert FOLDER ADAPTER` reads it."""
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

folder, steps, rate, size = Path(sys.argv[1]), int(sys.argv[3]), float(sys.argv[4]), 4
rows = [json.loads(line)["input_ids"] for line in open(sys.argv[2])]
manifest = json.loads((folder / "manifest.json").read_text())
names, optimizer = manifest["loss"], manifest["optimizer"]
session = onnxruntime.InferenceSession(folder / "model.onnx")
state = [np.fromfile(folder / "theta.f32", np.float32), *np.zeros((2, manifest["length"]), np.float32)]
outputs = [manifest["outputs"]["loss"], *(vector["output"] for vector in manifest["state"])]


def feeds(batch):
    length = max(map(len, batch))
    tokens = np.array([row + [0] * (length - len(row)) for row in batch])
    mask = np.array([[1] * len(row) + [0] * (length - len(row)) for row in batch])
    known = {"token_ids": tokens, "attention_mask": mask, "positions": 0 * mask + np.arange(length)}
    for item in manifest["inputs"]:
        shape = [len(batch) if n == "batch" else n for n in item["shape"]] or mask.shape
        yield item["name"], known.get(item["from"], np.zeros(shape)).astype(item["type"])
    predicting = np.flatnonzero(np.pad(mask[:, 1:], ((0, 0), (0, 1))))
    yield from [(names["rows"], predicting), (names["targets"], tokens.ravel()[predicting + 1])]
    yield names["weight"], np.float32(1 / len(predicting))


for step in range(steps):
    first = step * size % len(rows)
    powers = [(optimizer[f"bias{n}"], np.float32(1 - optimizer[f"beta{n}"] ** (step + 1))) for n in (1, 2)]
    inputs = {vector["input"]: value for vector, value in zip(manifest["state"], state)}
    inputs |= dict(feeds(rows[first : first + size])) | dict(powers) | {optimizer["rate"]: np.float32(rate)}
    loss, *state = session.run(outputs, {name: np.asarray(value) for name, value in inputs.items()})
    print(step + 1, float(loss))
state[0].tofile(folder / "theta.f32")
