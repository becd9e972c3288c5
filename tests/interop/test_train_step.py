"""The step graph, trained by the loops of examples/: losses and adapter are those of `eva-onnx train`.

ORT_WEB names a folder in which `npm install onnxruntime-web` was run.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import GRAPHS, ROOT
from safetensors.numpy import load_file

MODEL, STEPS, RATE = GRAPHS / "example/dynamo/model.onnx", 6, 1e-3
ORT_WEB = Path(os.environ.get("ORT_WEB", "/nowhere"))
HAS_WEB = shutil.which("node") and (ORT_WEB / "node_modules/onnxruntime-web").is_dir()


def eva_onnx(*arguments):
    subprocess.run([os.environ["EVA_ONNX"], *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with rows, an adapter, and what `train` makes of them."""
    folder = tmp_path_factory.mktemp("step")
    random = np.random.default_rng(3)
    rows = [random.integers(1, 60, length).tolist() for length in random.integers(12, 40, 24)]
    (folder / "rows.jsonl").write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
    eva_onnx("init", MODEL, "--data", folder / "rows.jsonl", "--out", folder / "adapter", "--device", "cpu", "--quiet")
    train(folder, "--out", folder / "trained", "--steps", STEPS, "--lr", RATE, "--schedule", "constant", "--warmup", 0,
          "--keep-order", "--batch-size", 4)
    return folder


def train(folder, *options):
    given = ["--data", folder / "rows.jsonl", "--adapter", folder / "adapter", "--device", "cpu", "--quiet"]
    eva_onnx("train", MODEL, *given, *options)


def check(folder, tmp_path, loop):
    """Runs a loop on a step graph. Sums of 32 bits are rounded in other ways; AdamW moves an entry by at most the rate a
    step, so a tenth of that tells a wrong step from rounding."""
    step = tmp_path / "step"
    train(folder, "--emit", "step-graph", "--out", step)
    printed = subprocess.run([*loop, step, folder / "rows.jsonl", str(STEPS), str(RATE)], capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    losses = [float(line.split()[1]) for line in printed.stdout.splitlines()]
    expected = [done["loss"] for done in json.loads((folder / "trained/train.json").read_text())["steps"]]
    assert len(losses) == STEPS
    np.testing.assert_allclose(losses[0], expected[0], rtol=1e-6)
    # Gradients that are nothing but rounding move their entries by the rate all the same, in either direction.
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    eva_onnx("convert", step, tmp_path / "adapter")
    made, wanted = (load_file(d / "adapter_model.safetensors") for d in (tmp_path / "adapter", folder / "trained"))
    start = load_file(folder / "adapter/adapter_model.safetensors")
    assert made.keys() == wanted.keys()
    for name, values in wanted.items():
        assert np.abs(values - start[name]).max() > RATE / 2, name
        np.testing.assert_allclose(made[name], values, atol=STEPS * RATE / 10, rtol=0)


def test_python(trained, tmp_path):
    check(trained, tmp_path, [sys.executable, ROOT / "examples/train_step.py"])


@pytest.mark.skipif(not HAS_WEB, reason="no node, or ORT_WEB names no folder with onnxruntime-web")
def test_javascript(trained, tmp_path):
    loop = shutil.copy(ROOT / "examples/train_step.mjs", ORT_WEB)
    run = tmp_path / "run.sh"
    run.write_text(f'exec node {loop} "$@" onnxruntime-web\n')
    check(trained, tmp_path, ["sh", run])
