"""PEFT loads an adapter from every export in graphs/exports into the model that was exported, with nothing missing."""

import gzip
import json
import os
import shutil
import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from conftest import GRAPHS
from peft import PeftModel
from safetensors.torch import load_file, save_file

EXPORTS = sorted(path.relative_to(GRAPHS / "exports") for path in (GRAPHS / "exports").rglob("*.onnx.gz"))
# A model that transformers does not know.
EXPORTS = [path for path in EXPORTS if path.parts[0] != "nasty"]
# Those that compute what PyTorch computes, as quantized graphs do not.
FLOAT = [path for path in EXPORTS if path.parts[1] in ("optimum", "attention", "saved", "dynamo-slim", "fp32", "dynamo")]

# Fused modules, beside which the graph has no place for a branch.
WITHOUT_PLACE = {
    "bert/attention": ("--exclude-modules", "query,key,value"),
    "bert/qoperator": ("--exclude-modules", "output.dense"),
}


@dataclass
class Export:
    graph: Path
    adapter: Path
    checkpoint: Path
    fed: dict


def run(*arguments):
    subprocess.run([os.environ["EVA_ONNX"], *map(str, arguments)], check=True)


def base_model(checkpoint):
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    return getattr(transformers, config.architectures[0]).from_pretrained(checkpoint).eval()


@pytest.fixture(params=EXPORTS, ids=str)
def export(request, tmp_path):
    """The adapter of an export and the checkpoint that belongs to it."""
    source = GRAPHS / "exports" / request.param
    for path in source.parent.iterdir():
        if path.suffix == ".gz":
            (tmp_path / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        else:
            shutil.copy(path, tmp_path)
    checkpoint = source.parent.parent / "checkpoint"
    inputs = load_file(checkpoint.parent / "inputs.safetensors")
    fed = {name.removeprefix("inputs."): rows for name, rows in inputs.items() if name.startswith("inputs.")}
    rows = [{name: value[row].tolist() for name, value in fed.items()} for row in range(2)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run("init", tmp_path / source.stem, "--data", tmp_path / "rows.jsonl", "--quiet", "--rank", 4, "--device", "cpu",
        "--checkpoint", checkpoint, "--out", tmp_path / "adapter", *WITHOUT_PLACE.get(str(request.param.parent), ()))
    return Export(tmp_path / source.stem, tmp_path / "adapter", checkpoint, fed)


def test_adapters_load_completely(export):
    adapter, checkpoint = export.adapter, export.checkpoint
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = PeftModel.from_pretrained(base_model(checkpoint), adapter)
    result = model.load_adapter(adapter, "again")
    assert not result.unexpected_keys
    assert not [key for key in result.missing_keys if ".again." in key]
    assert not getattr(result, "mismatched_keys", None)
    saved = load_file(adapter / "adapter_model.safetensors")
    loaded = {name.replace(".default.", "."): value for name, value in model.state_dict().items() if ".default." in name}
    assert loaded.keys() == saved.keys()
    assert all((loaded[name] == saved[name]).all() for name in saved)


@pytest.mark.parametrize("export", FLOAT, ids=str, indirect=True)
def test_spliced_graphs_compute_what_peft_computes(export, tmp_path):
    """With a B that is not zero, every branch must sit at the right layer: the names decide."""
    file = export.adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    generator = torch.Generator().manual_seed(0)
    for name in sorted(tensors):
        if "lora_B" in name:
            tensors[name] = torch.randn(tensors[name].shape, generator=generator) * 0.3
    save_file(tensors, file, {"format": "pt"})
    run("splice", export.graph, export.adapter, "--out", tmp_path / "spliced", "--checkpoint", export.checkpoint)

    base = base_model(export.checkpoint)
    before = outputs(base, export)
    model = PeftModel.from_pretrained(base, export.adapter).eval()
    expected = outputs(model.base_model.model, export)
    session = onnxruntime.InferenceSession(tmp_path / "spliced/model.onnx", providers=["CPUExecutionProvider"])
    change = float((expected["result"] - before["result"]).abs().max())
    assert change > 0.05, "the adapter does nothing"
    difference = np.abs(spliced(session, export, expected["states"]) - expected["result"].numpy()).max()
    # Both compute in 32 bits, with sums in a different order.
    assert difference < 1e-4 * change, difference


@pytest.mark.parametrize("form", ["trainable", "adapter-inputs"])
def test_attributes_stay(export, tmp_path, form):
    """Every node keeps its attributes, and those that are zero are set all the same."""
    run("splice", export.graph, export.adapter, "--as", form, "--out", tmp_path / "out", "--checkpoint",
        export.checkpoint)
    before, after = onnx.load(export.graph, load_external_data=False), onnx.load(tmp_path / "out/model.onnx")
    if is_standard(before):
        onnx.checker.check_model(after)
    kept = {node.name: plain(node) for node in after.graph.node}
    for node in before.graph.node:
        assert kept[node.name] == plain(node), node.name
    values = {onnx.AttributeProto.INT: "i", onnx.AttributeProto.FLOAT: "f", onnx.AttributeProto.STRING: "s"}
    for attribute in attributes(after.graph):
        field = values.get(attribute.type)
        assert field is None or attribute.HasField(field), attribute


def is_standard(model):
    """Whether the checker knows all operators; ONNX Runtime has some of its own in the default domain."""
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError:
        return False
    return True


def plain(node):
    """The attributes of a node but for graphs. Tensors without elements may have an empty field for their bytes."""
    found = [attribute for attribute in node.attribute if not attribute.HasField("g")]
    for attribute in found:
        if attribute.HasField("t") and not attribute.t.raw_data:
            attribute.t.ClearField("raw_data")
    return found


def attributes(graph):
    """Those of all nodes, in subgraphs too."""
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute
            for inner in [attribute.g] * attribute.HasField("g") + list(attribute.graphs):
                yield from attributes(inner)


def outputs(model, export):
    """What PyTorch computes: for a graph of a part of the model, of that part."""
    with torch.no_grad():
        out = model(**export.fed)
    states = out.get("encoder_last_hidden_state")
    result = states if export.graph.stem == "encoder_model" else out[0]
    return {"states": states, "result": result}


def spliced(session, export, states):
    """Runs a graph without a cache; the states are fed where it reads them."""
    fed = {name: value.numpy() for name, value in export.fed.items()}
    batch, length = next(iter(fed.values())).shape[:2]
    values = dict(fed, position_ids=np.tile(np.arange(length), (batch, 1)), use_cache_branch=np.array([False]),
                  token_type_ids=np.zeros((batch, length), dtype=np.int64))
    if states is not None and export.graph.stem != "encoder_model":
        values.update(encoder_hidden_states=states.numpy(), encoder_attention_mask=fed["attention_mask"],
                      input_ids=fed["decoder_input_ids"])
    for value in session.get_inputs():
        if value.name.startswith("past_key_values."):
            _, heads, _, width = value.shape
            sizes = (batch, heads, 0, width if isinstance(width, int) else 16)
            values[value.name] = np.zeros(sizes, dtype=np.float32)
    return session.run(None, {value.name: values[value.name] for value in session.get_inputs()})[0]
