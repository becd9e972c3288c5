"""PEFT loads an adapter from every export in graphs/exports into the model that was exported, with nothing missing."""

import gzip
import json
import os
import shutil
import subprocess
import warnings

import pytest
import transformers
from conftest import GRAPHS
from peft import PeftModel
from safetensors.torch import load_file

EXPORTS = sorted(path.relative_to(GRAPHS / "exports") for path in (GRAPHS / "exports").rglob("*.onnx.gz"))
# A model that transformers does not know.
EXPORTS = [path for path in EXPORTS if path.parts[0] != "nasty"]


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
    command = [os.environ["EVA_ONNX"], "init", tmp_path / source.stem, "--data", tmp_path / "rows.jsonl", "--quiet"]
    command += ["--out", tmp_path / "adapter", "--rank", 4, "--device", "cpu", "--checkpoint", checkpoint]
    subprocess.run(list(map(str, command)), check=True)
    return tmp_path / "adapter", checkpoint


def test_adapters_load_completely(export):
    adapter, checkpoint = export
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
