"""The Python package as a program uses it; `make python` builds it before."""

import json
import os
import subprocess
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import eva_onnx
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "graphs/example/dynamo"
MODEL = EXAMPLE / "model.onnx"
DATA = ROOT / "fixtures/calibration.jsonl"
ROWS = 32


def program(*words, **more):
    """Runs the command line of the package."""
    line = [sys.executable, "-m", "eva_onnx", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, **more)


@pytest.fixture(scope="session")
def rows():
    """The first rows of the data."""
    with open(DATA) as file:
        return [json.loads(next(file)) for _ in range(ROWS)]


@pytest.fixture
def data(tmp_path, rows):
    """The same rows as a file."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def adapter(tmp_path_factory, rows):
    """The folder of an adapter."""
    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    eva_onnx.init(MODEL, rows, rank=4, device="cpu", out=folder)
    return folder
