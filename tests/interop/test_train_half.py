"""`train` on models in 16 bits, which ONNX Runtime's own converter makes of the example."""

import json
import os
import subprocess

import numpy as np
import onnx
import pytest
from conftest import GRAPHS
from onnxruntime.transformers.float16 import convert_float_to_float16

EXPORT = GRAPHS / "example/dynamo"
ROWS = GRAPHS.parent / "fixtures/calibration.jsonl"
STEPS = 8
# Weights, activations and gradients are rounded to u = 2^-11. The way through the three layers and back again is about 60
# products long; errors that are nearly independent grow with its root: 8 u, and three times that for the worst of the steps.
TOLERANCE = 24 * 2**-11


def train(model, folder, *more):
    arguments = ["train", model, "--data", ROWS, "--keep-order", "--batch-size", 4, "--steps", STEPS, "--lr", 1e-3]
    arguments += ["--schedule", "constant", "--out", folder, "--device", "cpu", "--quiet", *more]
    return subprocess.run([os.environ["EVA_ONNX"], *map(str, arguments)], capture_output=True, text=True)


def saved(model, folder):
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    for name in ["config.json", "tokenizer.json"]:
        (folder / name).write_bytes((EXPORT / name).read_bytes())
    return folder / "model.onnx"


def half(folder, keep_io):
    return saved(convert_float_to_float16(onnx.load(EXPORT / "model.onnx"), keep_io_types=keep_io), folder)


def history(folder):
    return json.loads((folder / "train.json").read_text())["steps"]


@pytest.mark.parametrize("keep_io", [True, False], ids=["logits in f32", "logits in f16"])
def test_f16_trains_as_f32_does(keep_io, tmp_path):
    adapter = tmp_path / "adapter"
    arguments = ["init", EXPORT / "model.onnx", "--data", ROWS, "--max-batches", 4, "--out", adapter, "--quiet"]
    subprocess.run([os.environ["EVA_ONNX"], *map(str, arguments)], check=True)
    model = half(tmp_path / "f16", keep_io)
    for source, out in [(EXPORT / "model.onnx", "wide"), (model, "half")]:
        done = train(source, tmp_path / out, "--adapter", adapter)
        assert done.returncode == 0, done.stderr
    for wide, narrow in zip(history(tmp_path / "wide"), history(tmp_path / "half"), strict=True):
        assert narrow["loss"] == pytest.approx(wide["loss"], rel=TOLERANCE)
        assert narrow["norm"] == pytest.approx(wide["norm"], rel=TOLERANCE)


# The weights of the head and of the last normalization are divided by these: they stay about as large as the smallest normal
# number of f16, and the gradient behind both is less than 1e-9, while the smallest number of f16 is 2^-24 = 6e-8.
FAINT = {"head": 2**8, "normalization": 2**10}


def faint(model):
    """The model with a head of next to nothing, so that every logit is about 0."""
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    head = producers["logits"]
    for node, divisor in [(producers[head.input[1]], FAINT["head"]), (producers[head.input[0]], FAINT["normalization"])]:
        name = next(name for name in node.input if name in tensors)
        values = onnx.numpy_helper.to_array(tensors[name]) / np.float32(divisor)
        graph.initializer.append(onnx.numpy_helper.from_array(values, f"{name}/faint"))
        node.input[:] = [f"{name}/faint" if read == name else read for read in node.input]
    return model


def test_gradients_too_small_for_f16_are_those_of_f32(tmp_path):
    """Sums stay in f32 here, as exporters of f16 models leave some operators, so that each gradient passes through f16."""
    adapter = tmp_path / "adapter"
    model = faint(onnx.load(EXPORT / "model.onnx"))
    wide = saved(model, tmp_path / "f32-model")
    arguments = ["init", wide, "--data", ROWS, "--max-batches", 4, "--out", adapter, "--quiet"]
    subprocess.run([os.environ["EVA_ONNX"], *map(str, arguments)], check=True)
    narrow = saved(convert_float_to_float16(model, op_block_list=["Add"]), tmp_path / "f16-model")
    for source, out in [(wide, "wide"), (narrow, "half")]:
        # The differences of such a loss are too small for the check of its gradient.
        done = train(source, tmp_path / out, "--adapter", adapter, "--no-check")
        assert done.returncode == 0, done.stderr
    for one, other in zip(history(tmp_path / "wide"), history(tmp_path / "half"), strict=True):
        assert 0 < one["norm"] < 2**-14
        assert other["norm"] == pytest.approx(one["norm"], rel=TOLERANCE)
