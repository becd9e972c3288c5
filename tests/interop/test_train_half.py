"""`train` on models in 16 bits, which ONNX Runtime's own converter makes of the example."""

import json
import os
import subprocess

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


def half(folder, keep_io):
    model = convert_float_to_float16(onnx.load(EXPORT / "model.onnx"), keep_io_types=keep_io)
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    for name in ["config.json", "tokenizer.json"]:
        (folder / name).write_bytes((EXPORT / name).read_bytes())
    return folder / "model.onnx"


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
