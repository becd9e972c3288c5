"""What `inspect` and `check` return: what files say, without a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TensorInfo:
    """An input of a model."""

    name: str
    dtype: str
    shape: list[int | str | None] | None
    """Sizes: a number, a name, or None for one that is open without a name; None where even their number is unknown."""


@dataclass(frozen=True)
class ModelInfo:
    """What a model file says of itself."""

    producer: str
    """Name and version of the exporter."""
    opset: int
    """Version of the default operator set."""
    ir_version: int
    inputs: list[TensorInfo]
    external_data: bool
    """Whether weights are in files of their own."""


@dataclass(frozen=True)
class ModuleInfo:
    """A PyTorch module that a node computes."""

    name: str
    """The full name in PyTorch."""
    columns: tuple[int, int] | None
    """The node's output features that belong to it, as start and end; None for all."""
    slice: tuple[int, int, int] | None
    """The module's output features that the node computes, as start, end and their whole number; None for all."""


@dataclass(frozen=True)
class LayerInfo:
    """A linear layer: a node that computes y = x W."""

    node: str
    op: str
    scope: list[str]
    """The subgraph that holds the node, one step each; empty for the main graph."""
    input: str
    """The tensor x."""
    output: str
    """The tensor x W."""
    fused: str | None
    """Why no LoRA branch can be added to the layer, if so."""
    weight: str
    """The tensor that stores W."""
    in_features: int
    out_features: int
    dtype: str
    """Element type of the product."""
    bias: str | None
    fan_in_fan_out: bool
    """Whether the PyTorch module stores its weight as [in, out]."""
    modules: list[ModuleInfo]
    named_by: str
    """Where the names come from."""
    group: int | None
    """Number of the group of its first chosen module: layers of one group read the same input."""
    targeted: bool
    """Whether `init` would choose any of its modules."""


@dataclass(frozen=True)
class SkippedNode:
    """A node that looks like a linear layer but cannot be used."""

    node: str
    op: str
    modules: list[str]
    """The modules that it computes, where their names are known."""
    reason: str


@dataclass(frozen=True)
class Inspection:
    """The linear layers of a model, their names in PyTorch, and which of them `init` would choose."""

    model: ModelInfo
    layers: list[LayerInfo]
    """In the order of the graph."""
    skipped: list[SkippedNode]
    notes: list[str]


@dataclass(frozen=True)
class FormChecked:
    """Whether `splice` can make one form."""

    form: str
    """`trainable`, `adapter-inputs` or `merged`."""
    problem: str | None
    """Why not, if it cannot."""


@dataclass(frozen=True)
class Checked:
    """What is known of an adapter and a model."""

    fits: bool
    """Whether the model has every module of the adapter with the same sizes."""
    problems: list[str]
    hint: str | None
    """What to do about the problems."""
    modules: int
    """Modules of the adapter."""
    ranks_total: int
    ranks: tuple[int, int]
    """Smallest and largest rank."""
    adapter_dtypes: list[str]
    """Element types of the adapter's matrices, where the file records them."""
    model_dtypes: list[str]
    """Element types that the layers compute in."""
    base_models: tuple[str | None, str | None]
    """The base model that the adapter records, and the one that the model's config.json records."""
    forms: list[FormChecked]
    notes: list[str]


def inspection(text: str) -> Inspection:
    """The document of `eva-onnx inspect --json`."""
    document = json.loads(text)
    model = document.pop("model")
    inputs = [TensorInfo(**value) for value in model.pop("inputs")]
    return Inspection(
        model=ModelInfo(inputs=inputs, **model),
        layers=[_layer(**layer) for layer in document.pop("linears")],
        skipped=[SkippedNode(**node) for node in document.pop("skipped")],
        **document,
    )


def _layer(*, modules: list[dict[str, Any]], **layer: Any) -> LayerInfo:
    return LayerInfo(modules=[_module(**module) for module in modules], **layer)


def _module(*, module: str, columns: list[int] | None, slice: list[int] | None) -> ModuleInfo:
    return ModuleInfo(module, _tuple(columns), _tuple(slice))


def _tuple(values: list[Any] | None) -> Any:
    return None if values is None else tuple(values)


def checked(text: str) -> Checked:
    """The document of `eva-onnx check --json`."""
    document = json.loads(text)
    forms = [FormChecked(form["as"], form["problem"]) for form in document.pop("forms")]
    pairs = {name: tuple(document.pop(name)) for name in ("ranks", "base_models")}
    return Checked(forms=forms, **pairs, **document)
