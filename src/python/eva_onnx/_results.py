"""What the commands return."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import _native


@dataclass(frozen=True)
class Progress:
    """The state of `init` after a batch."""

    batches: int
    planned: int | None
    """Batches in all, as soon as the rows are read that far."""
    converged: int
    """Modules whose components have converged."""
    modules: int
    tokens_seen: int
    tokens_kept: int
    """Tokens that entered the statistics."""
    block: int | None = None
    """With `blocks`: the block that runs, from 1; batches and tokens are those that it has seen."""
    blocks: int | None = None
    """With `blocks`: how many there are."""


@dataclass(frozen=True)
class TrainProgress:
    """The state of `train` before the first step and after each."""

    steps: int
    planned: int
    loss: float
    """That of the last step."""
    targets: int
    """Predictions so far."""


@dataclass(frozen=True, eq=False)
class Module:
    """The adapter of one module: W + (alpha / rank) B A."""

    name: str
    """The full name in PyTorch."""
    rank: int
    alpha: float
    in_features: int
    out_features: int
    group: int
    """Modules of one group read the same input."""
    converged: bool
    spectrum: np.ndarray
    """Share of the input's variance on each component that the module could have got, float64 [components]."""
    similarity: np.ndarray
    """|cosine| of each component with its value one batch earlier, float64 [components]."""
    A: np.ndarray
    """float32 [rank, in_features]."""
    B: np.ndarray
    """float32 [out_features, rank]."""

    @property
    def explained_variance(self) -> float:
        """Share of the input's variance that the components of the module explain."""
        return float(self.spectrum[: self.rank].sum())


@dataclass(frozen=True, eq=False)
class Initialised:
    """An adapter that EVA initialised, and what the run found."""

    modules: list[Module]
    """In the order of the graph, those of rank 0 included."""
    budget: int
    ranks_total: int
    batches: int
    tokens_seen: int
    tokens_kept: int
    converged: bool
    stopped_by: str
    """`converged`, `data`, `max_batches` or `interrupted`."""
    notes: list[str]
    """What the user of the adapter should know."""
    report: dict[str, Any]
    """eva.json."""
    _run: _native.Run = field(repr=False)

    def save(self, out: str | os.PathLike[str], *, force: bool = False) -> None:
        """Writes a PEFT folder with eva.json, which appears whole or not at all."""
        self._run.save(os.fspath(out), force)


@dataclass(frozen=True)
class Evaluation:
    """The loss on the rows of `eval`."""

    step: int
    """Steps done."""
    loss: float
    targets: int
    """Predictions: tokens, or numbers of rows."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained adapter, and how the training went."""

    modules: list[Module]
    """Those with an adapter; what only `init` finds (group, spectrum, similarity) is empty."""
    saved: dict[str, np.ndarray]
    """Parameters of layers that were trained whole, by their names: PEFT's `modules_to_save`."""
    losses: np.ndarray
    """The loss of each step, before it, float64 [steps]."""
    norms: np.ndarray
    """The norm of each step's gradient, before it was clipped, float64 [steps]."""
    rates: np.ndarray
    """The learning rate of each step, float64 [steps]."""
    evaluations: list[Evaluation]
    planned: int
    """Steps planned; fewer were done if the training was stopped."""
    report: dict[str, Any]
    """train.json."""
    _training: _native.Training = field(repr=False)

    def save(self, out: str | os.PathLike[str], *, force: bool = False) -> None:
        """Writes a PEFT folder with train.json, which appears whole or not at all."""
        self._training.save(os.fspath(out), force)


@dataclass(frozen=True)
class Spliced:
    """What `splice` wrote."""

    modules: int
    ranks_total: int
    layers: int
    linked_bytes: int
    copied_bytes: int
    notes: list[str]


@dataclass(frozen=True)
class Converted:
    """What `convert` wrote."""

    modules: int
    ranks_total: int
    notes: list[str]


def array(matrix: tuple[list[int], bytes]) -> np.ndarray:
    """The array of a shape and its bytes."""
    shape, data = matrix
    return np.frombuffer(data, "<f4").astype(np.float32).reshape(shape)


def initialised(run: _native.Run) -> Initialised:
    """The result of a run."""
    report = json.loads(run.report())
    matrices = {name: (a, outside, b) for name, _, a, outside, b in run.modules()}
    return Initialised(
        modules=[_module(layer, matrices) for layer in report["layers"]],
        **{name: report[name] for name in ("budget", "ranks_total", "batches", "tokens_seen", "tokens_kept")},
        **{name: report[name] for name in ("converged", "stopped_by", "notes")},
        report=report,
        _run=run,
    )


def _module(layer: dict[str, Any], matrices: dict[str, Any]) -> Module:
    a, outside, b = matrices.get(layer["module"], (([0, layer["in_features"]], b""), layer["out_features"], None))
    return Module(
        name=layer["module"],
        **{name: layer[name] for name in ("rank", "alpha", "in_features", "out_features", "group", "converged")},
        spectrum=np.array(layer["explained_variance_ratio"], np.float64),
        similarity=np.array(layer["similarity"], np.float64),
        A=array(a),
        B=array(b) if b else np.zeros((outside, layer["rank"]), np.float32),
    )


def trained(training: _native.Training) -> Trained:
    """The result of a training."""
    report = json.loads(training.report())
    nothing = np.zeros(0)
    modules = []
    for name, alpha, matrix, outside, b in training.modules():
        a = array(matrix)
        rank, inside = a.shape
        b = array(b) if b else np.zeros((outside, rank), np.float32)
        modules.append(Module(name, rank, alpha, inside, outside, -1, False, nothing, nothing, a, b))
    return Trained(
        modules=modules,
        saved={f"{module}.{name}": array(matrix) for module, name, matrix in training.saved()},
        **{
            name: np.array([step[key] for step in report["steps"]], np.float64)
            for name, key in (("losses", "loss"), ("norms", "norm"), ("rates", "rate"))
        },
        evaluations=[Evaluation(**evaluation) for evaluation in report["evaluations"]],
        planned=report["planned"],
        report=report,
        _training=training,
    )
