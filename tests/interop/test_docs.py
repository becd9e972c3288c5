"""The Python on the pages for users runs as it stands there."""

import os
import re
import subprocess

import onnxruntime
from conftest import GRAPHS, ROOT, base_model, batches

EXPORT = "example/dynamo"


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def eva_onnx(*arguments):
    subprocess.run(list(map(str, (os.environ["EVA_ONNX"], *arguments))), check=True, stdout=subprocess.DEVNULL)


def test_readme_loads_the_adapter(init, monkeypatch):
    adapter = init(EXPORT)
    monkeypatch.chdir(adapter.folder.parent)
    (block,) = blocks("README.md")
    names = {"base_model": base_model(EXPORT)}
    exec(block, names)
    assert any(parameter.requires_grad for parameter in names["model"].parameters())


def test_adapters_page_swaps_adapters(init, monkeypatch, tmp_path):
    folder = tmp_path / "served"
    eva_onnx("splice", GRAPHS / EXPORT / "model.onnx", init(EXPORT).folder, "--as", "adapter-inputs", "--out", folder)
    monkeypatch.chdir(folder)
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    inputs = {name: tensor.numpy() for name, tensor in next(iter(batches(EXPORT))).items()}
    (block,) = blocks("docs/adapters.md")
    exec(block, {"onnxruntime": onnxruntime, "session": session, "inputs": inputs})
