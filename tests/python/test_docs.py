"""The Python of docs/python.md runs as it stands there, with transformers, PEFT and TRL."""

import os
import re
import shutil

import pytest
import torch
from conftest import EXAMPLE, ROOT

PAGE = ROOT / "docs/python.md"


@pytest.fixture(scope="module")
def page(tmp_path_factory, rows):
    """What the blocks of the page define, up to the one that needs TRL; and that one with what follows."""
    folder = tmp_path_factory.mktemp("page")
    for source in (EXAMPLE, ROOT / "graphs/example/checkpoint"):
        shutil.copytree(source, folder / ("checkpoint" if source.name == "checkpoint" else "."), dirs_exist_ok=True)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    names = {"dataset": rows}
    before = os.getcwd()
    os.chdir(folder)
    yield names, blocks
    os.chdir(before)


def run(page, *wanted):
    names, blocks = page
    for block in blocks:
        done = names.setdefault("done", [])
        if block not in done and any(word in block for word in wanted):
            done.append(block)
            exec(compile(block, str(PAGE), "exec"), names)
    return names


def test_the_trainer_of_transformers_trains_the_adapter(page):
    names = run(page, "import eva_onnx", "Trainer(\n    model")
    losses = [entry["loss"] for entry in names["trainer"].state.log_history if "loss" in entry]
    losses += [entry["train_loss"] for entry in names["trainer"].state.log_history if "train_loss" in entry]
    assert losses and all(loss > 0 for loss in losses)
    layer = names["model"].get_submodule(f"base_model.model.{names['run'].modules[0].name}")
    assert layer.lora_B["default"].weight.abs().max() > 0


def test_the_callback_gives_trl_the_matrices_of_eva(page):
    pytest.importorskip("trl")
    names = run(page, "import eva_onnx", "Trainer(\n    model", "class EvaCallback")
    callback = names["EvaCallback"]
    begun, seen = callback.on_train_begin, []

    def watched(self, *arguments, model=None, **more):
        begun(self, *arguments, model=model, **more)
        for module in self.run.modules:
            layer = model.get_submodule(f"base_model.model.{module.name}")
            assert torch.equal(layer.lora_A["default"].weight, torch.from_numpy(module.A))
            assert not layer.lora_B["default"].weight.any()
            seen.append(module.name)

    callback.on_train_begin = watched
    names = run(page, "from trl import")
    assert len(seen) == len(names["trainer"].model.targeted_module_names) > 0


def test_the_rest_of_the_page_runs(page, capsys):
    names = run(page, "import eva_onnx", "eva_onnx.inspect(", "eva_onnx.train(", "except eva_onnx")
    assert len(names["trained"].losses) == 3
    assert [module.name for layer in names["layers"] for module in layer.modules]
    printed = capsys.readouterr().out
    assert "\nTrue\n" in printed and "`data` row 1: no text or token ids" in printed
