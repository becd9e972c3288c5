"""Adapters trained in PEFT, put into the graphs: ONNX Runtime computes what PEFT computes."""

import functools
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import EXPORTS, GRAPHS, base_model, batches
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

# The largest difference, as a share of the largest logit. ONNX Runtime and PyTorch add 32-bit products in different
# orders. On the way to a logit of the example some n = 2,800 products are added (three blocks of width 160, 384 inside),
# each off by u = 2^-24 at most and nearly independent: 3 sqrt(n) u = 1e-5. The largest that was seen is 3e-6.
TOLERANCE = 1e-5
KINDS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {r".*\.0\..*": 2, r"1\.\w+\.\w+": 7},
        "alpha_pattern": {"query|q_proj|c_attn": 3, r".*\.1\..*": 12.5},
    },
}


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A PEFT adapter with B far from zero, and its logits for some batches."""

    @functools.cache
    def make(export, kind):
        folder = tmp_path_factory.mktemp("peft")
        conv1d = "gpt2" in export
        config = LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", fan_in_fan_out=conv1d, **KINDS[kind])
        torch.manual_seed(1)
        model = get_peft_model(base_model(export), config).eval()
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = 0.1 * torch.randn_like(parameter)
        model.save_pretrained(folder)
        # Saving sorts the patterns, of which the first that matches counts.
        model = PeftModel.from_pretrained(base_model(export), folder).eval()
        with torch.no_grad():
            return folder, [model(**batch).logits.numpy() for batch in some_batches(export)]

    return make


def some_batches(export):
    return [batch for batch, _ in zip(batches(export), range(3))]


def run(*arguments):
    return subprocess.run([os.environ["EVA_ONNX"], *map(str, arguments)], check=True, capture_output=True, text=True)


def splice(export, adapter, form, folder, *more):
    run("splice", GRAPHS / export / "model.onnx", adapter, "--as", form, "--out", folder, *more)
    return folder


def session(folder):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])


def feeds(session, batch):
    """What the graph asks for: tokens, masks, positions, and an empty key/value cache."""
    known = {name: value.numpy() for name, value in batch.items()}
    rows, length = known["input_ids"].shape
    known["position_ids"] = np.tile(np.arange(length), (rows, 1))
    known["token_type_ids"] = np.zeros((rows, length), dtype=np.int64)
    result = {}
    for value in session.get_inputs():
        if value.name.startswith("past_key_values"):
            shape = [rows if axis == 0 else size if isinstance(size, int) else 0 for axis, size in enumerate(value.shape)]
            result[value.name] = np.zeros(shape, dtype=np.float32)
        else:
            result[value.name] = known[value.name]
    return result


def logits(session, batch, adapter=None):
    options = onnxruntime.RunOptions()
    # The options only borrow the adapter.
    loaded = onnxruntime.LoraAdapter()
    if adapter:
        loaded.Load(str(adapter))
        options.add_active_adapter(loaded)
    return session.run(["logits"], feeds(session, batch), options)[0]


def check(session, export, expected, adapter=None):
    for batch, want in zip(some_batches(export), expected):
        got = logits(session, batch, adapter)
        # Rows of padding attend to nothing and differ between exporters.
        if want.ndim == 3:
            kept = batch["attention_mask"].bool().numpy()
            got, want = got[kept], want[kept]
        difference = np.abs(got - want).max() / np.abs(want).max()
        assert difference <= TOLERANCE, difference


def base_logits(export):
    model = base_model(export)
    with torch.no_grad():
        return [model(**batch).logits.numpy() for batch in some_batches(export)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("export", EXPORTS)
def test_three_forms_compute_what_peft_computes(export, kind, trained, tmp_path):
    adapter, expected = trained(export, kind)
    base = base_logits(export)
    assert all(np.abs(one - other).max() > 100 * TOLERANCE for one, other in zip(base, expected))

    check(session(splice(export, adapter, "trainable", tmp_path / "trainable")), export, expected)
    check(session(splice(export, adapter, "merged", tmp_path / "merged")), export, expected)

    folder = splice(export, adapter, "adapter-inputs", tmp_path / "inputs")
    served = session(folder)
    check(served, export, base)
    check(served, export, expected, folder / "adapter.onnx_adapter")


def test_adapters_are_swapped_at_run_time(trained, tmp_path):
    export = "example/dynamo"
    folder = splice(export, trained(export, "plain")[0], "adapter-inputs", tmp_path / "served")
    served = session(folder)
    for kind in [*KINDS, *KINDS]:
        adapter, expected = trained(export, kind)
        file = tmp_path / f"{kind}.onnx_adapter"
        if not file.exists():
            run("convert", adapter, file)
        check(served, export, expected, file)
    check(served, export, base_logits(export))


def test_onnxruntime_reads_what_is_written(trained, tmp_path):
    export = "tiny/gpt2-dynamo"
    adapter, _ = trained(export, "patterns")
    run("convert", adapter, tmp_path / "ours.onnx_adapter")
    ours = onnxruntime.AdapterFormat.read_adapter(str(tmp_path / "ours.onnx_adapter"))
    assert ours.get_format_version() == 1
    tensors = load_file(adapter / "adapter_model.safetensors")
    model = PeftModel.from_pretrained(base_model(export), adapter)
    scales = {name: module.scaling["default"] for name, module in model.named_modules() if hasattr(module, "scaling")}
    expected = {}
    for key, value in tensors.items():
        name, part, _ = key.rsplit(".", 2)
        value = value.T.numpy()
        value = value * np.float32(scales[name]) if part == "lora_B" else value
        expected[f"lora/{name.removeprefix('base_model.model.')}/{part[-1]}"] = value
    parameters = ours.get_parameters()
    assert parameters.keys() == expected.keys()
    for name, value in parameters.items():
        assert np.array_equal(value.numpy(), expected[name]), name

    # The other way round: what onnxruntime writes is read.
    theirs = onnxruntime.AdapterFormat()
    theirs.set_parameters(parameters)
    theirs.export_adapter(str(tmp_path / "theirs.onnx_adapter"))
    run("convert", tmp_path / "theirs.onnx_adapter", tmp_path / "back")
    run("convert", tmp_path / "back", tmp_path / "again.onnx_adapter")
    again = onnxruntime.AdapterFormat.read_adapter(str(tmp_path / "again.onnx_adapter")).get_parameters()
    for name, value in parameters.items():
        assert np.array_equal(value.numpy(), again[name].numpy()), name


@pytest.mark.parametrize("export", EXPORTS)
def test_adapters_go_round(export, trained, tmp_path):
    """Every way to a PEFT folder and back, byte by byte."""
    adapter, _ = trained(export, "patterns")
    splice(export, adapter, "trainable", tmp_path / "trainable")
    run("convert", tmp_path / "trainable/model.onnx", tmp_path / "peft")
    assert load_file(adapter / "adapter_model.safetensors").keys() == load_file(tmp_path / "peft/adapter_model.safetensors").keys()
    for name, value in load_file(adapter / "adapter_model.safetensors").items():
        assert torch.equal(value, load_file(tmp_path / "peft/adapter_model.safetensors")[name]), name
    splice(export, tmp_path / "peft", "trainable", tmp_path / "again")
    assert files(tmp_path / "again") == files(tmp_path / "trainable")
    run("convert", tmp_path / "again/model.onnx", tmp_path / "peft2")
    assert files(tmp_path / "peft2") == files(tmp_path / "peft")

    # PEFT agrees.
    one, other = (PeftModel.from_pretrained(base_model(export), folder).eval() for folder in (adapter, tmp_path / "peft"))
    for batch in some_batches(export):
        with torch.no_grad():
            assert torch.equal(one(**batch).logits, other(**batch).logits)


def files(folder: Path):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_uniform_rank_computes_the_same(trained, tmp_path):
    """Zero rows and columns up to one rank, one scale, no patterns: for readers that know only those."""
    export = "example/optimum"
    adapter, expected = trained(export, "patterns")
    run("convert", adapter, tmp_path / "uniform", "--uniform-rank")
    config = json.loads((tmp_path / "uniform/adapter_config.json").read_text())
    assert (config["rank_pattern"], config["alpha_pattern"]) == ({}, {})
    ranks = {value.shape[0] for name, value in load_file(tmp_path / "uniform/adapter_model.safetensors").items() if "lora_A" in name}
    assert ranks == {config["r"]}
    model = PeftModel.from_pretrained(base_model(export), tmp_path / "uniform").eval()
    for batch, want in zip(some_batches(export), expected):
        with torch.no_grad():
            got = model(**batch).logits.numpy()
        assert np.abs(got - want).max() / np.abs(want).max() <= TOLERANCE
