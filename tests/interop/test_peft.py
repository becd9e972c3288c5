"""PEFT loads the adapters as they are meant: every tensor in its place, the right scales, and a step trains B."""

import json
import warnings

import pytest
import torch
from conftest import EXPORTS, base_model, batches
from peft import PeftModel
from peft.tuners.lora import LoraLayer

OPTIONS = {
    "eva": ("--rank", 4),
    "uniform": ("--rank", 4, "--ranks", "uniform", "--alpha", 8),
    # More candidates than the budget: some modules get nothing.
    "some-rank-0": ("--rank", 1, "--rho", 8),
}
CASES = [(export, options) for export in EXPORTS for options in OPTIONS]


@pytest.fixture(params=CASES, ids="-".join)
def adapter(request, init):
    export, options = request.param
    adapter = init(export, *OPTIONS[options])
    ranks = [layer["rank"] for layer in adapter.layers.values()]
    assert (0 in ranks) == (options == "some-rank-0")
    return adapter


def load(adapter, **options):
    """The model with its adapter; no warning is allowed."""
    base = base_model(adapter.export)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return PeftModel.from_pretrained(base, adapter.folder, **options)


def lora_layers(model):
    prefix = "base_model.model."
    modules = model.named_modules()
    return {name.removeprefix(prefix): module for name, module in modules if isinstance(module, LoraLayer)}


def logits(model, batch):
    with torch.no_grad():
        return model(**batch).logits


def test_every_tensor_is_loaded_unchanged(adapter):
    model = load(adapter)
    loaded = {name.replace(".default.", "."): value for name, value in model.state_dict().items() if "lora_" in name}
    assert loaded.keys() == adapter.tensors.keys()
    for name, value in loaded.items():
        assert torch.equal(value, adapter.tensors[name]), name

    result = model.load_adapter(adapter.folder, "again")
    assert not result.unexpected_keys
    assert not [key for key in result.missing_keys if ".again." in key]
    assert not getattr(result, "mismatched_keys", None)


def test_ranks_and_scales_are_those_of_the_report(adapter):
    model = load(adapter)
    found = lora_layers(model)
    with open(adapter.folder / "adapter_config.json") as file:
        config = json.load(file)
    scale = config["lora_alpha"] / config["r"]
    assert found.keys() == {name for name, layer in adapter.layers.items() if layer["rank"] > 0}
    for name, module in found.items():
        layer = adapter.layers[name]
        assert module.r["default"] == layer["rank"], name
        assert module.scaling["default"] == pytest.approx(layer["alpha"] / layer["rank"], rel=1e-12), name
        assert module.scaling["default"] == pytest.approx(scale, rel=1e-12), name


def test_modules_without_rank_are_untouched(adapter):
    base, model = base_model(adapter.export), load(adapter).base_model.model
    for name, layer in adapter.layers.items():
        if layer["rank"] == 0:
            assert type(model.get_submodule(name)) is type(base.get_submodule(name)), name


def test_the_output_is_unchanged_until_trained(adapter):
    base, model = base_model(adapter.export), load(adapter)
    for batch in batches(adapter.export):
        expected = logits(base, batch)
        assert expected.isfinite().all()
        assert torch.equal(logits(model, batch), expected)


def test_one_step_trains_every_b(adapter):
    model = load(adapter, is_trainable=True)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(trainable) == len(adapter.tensors)
    batch = next(batches(adapter.export))
    before = logits(model, batch)
    optimizer = torch.optim.SGD(trainable, lr=0.1)
    model(**batch).logits.logsumexp(-1).mean().backward()
    optimizer.step()
    for name, module in lora_layers(model).items():
        assert module.lora_B["default"].weight.any(), name
        # With B = 0 no gradient reaches A.
        assert torch.equal(module.lora_A["default"].weight, adapter.a(name)), name
    assert not torch.equal(logits(model, batch), before)
