"""ONNX Runtime Training 1.19.2 trains the spliced graphs: gradients and results are those of PEFT.

ORT_TRAINING is a Python with onnxruntime-training-cpu==1.19.2; without it these tests are skipped.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EXPORTS, base_model, batches
from peft import LoraConfig, PeftModel, get_peft_model
from test_splice import TOLERANCE, files, logits, run, session, splice

PYTHON = os.environ.get("ORT_TRAINING")
WHEELS = "its wheels are for Python 3.11 and 3.12 on x86-64 only"
pytestmark = pytest.mark.skipif(not PYTHON, reason=f"ORT_TRAINING names no Python with onnxruntime-training-cpu: {WHEELS}")
SCRIPT = Path(__file__).with_name("ort_training.py")
STEPS, RATE = 50, 2e-3
# The largest difference from gradients in 64 bits, as a share of the largest entry of a tensor: what the README says.
GRADIENTS = 5e-6
IGNORED = -100


def labelled(export):
    """One padded batch with labels."""
    batch = next(batches(export))
    if "bert" in export:
        return {**batch, "labels": torch.arange(len(batch["input_ids"])) % 2}
    return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)}


def adapter(export, folder):
    """A PEFT adapter whose B is not zero, so that A has gradients too, and different ranks."""
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules="all-linear",
        fan_in_fan_out="gpt2" in export,
        rank_pattern={r".*\.0\..*": 2},
    )
    torch.manual_seed(2)
    model = get_peft_model(base_model(export), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)


def peft_gradients(export, folder, batch):
    """The loss, and the gradients by the names and in the orientation that the graph has, in 64 bits."""
    # Without dropout, as the graph is.
    model = PeftModel.from_pretrained(base_model(export), folder, is_trainable=True).eval().double()
    loss = model(**batch).loss
    loss.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            module, part, *_ = name.removeprefix("base_model.model.").rsplit(".", 3)
            gradients[f"lora/{module}/{part[-1]}"] = parameter.grad.T.numpy()
    return loss.item(), gradients


@pytest.mark.parametrize("export", EXPORTS)
def test_training_is_that_of_peft(export, tmp_path, record_property):
    adapter(export, tmp_path / "adapter")
    folder = splice(export, tmp_path / "adapter", "trainable", tmp_path / "training", "--ort-training")
    batch = labelled(export)
    np.savez(tmp_path / "batch.npz", **{name: value.numpy() for name, value in batch.items()})
    out = tmp_path / "trained"
    arguments = [PYTHON, SCRIPT, folder, tmp_path / "batch.npz", STEPS, RATE, out]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    result = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-2000:]

    expected_loss, expected = peft_gradients(export, tmp_path / "adapter", batch)
    losses = json.loads((out / "losses.json").read_text())
    assert losses[0] == pytest.approx(expected_loss, rel=1e-5)
    gradients = dict(np.load(out / "gradients.npz"))
    assert gradients.keys() == expected.keys()
    worst = 0
    for name, want in expected.items():
        assert np.abs(want).max() > 0, name
        worst = max(worst, np.abs(gradients[name] - want).max() / np.abs(want).max())
    print(f"{export}: gradients {worst:.1e}, loss {losses[0]:.6f} -> {losses[-1]:.6f}", end=" ")
    assert worst <= GRADIENTS
    assert losses[-1] < 0.9 * losses[0]

    # What was trained is an adapter of PEFT again, and another graph.
    run("convert", out / "model.onnx", tmp_path / "back")
    model = PeftModel.from_pretrained(base_model(export), tmp_path / "back").eval()
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        want = model(**inputs).logits.numpy()
    again = splice(export, tmp_path / "back", "trainable", tmp_path / "again")
    kept = batch["attention_mask"].bool().numpy() if want.ndim == 3 else slice(None)
    for folder in [out, again]:
        got = logits(session(folder), inputs)
        difference = np.abs(got[kept] - want[kept]).max() / np.abs(want[kept]).max()
        print(f"logits {difference:.1e}", end=" ")
        assert difference <= TOLERANCE


def test_the_script_trains_from_rows(tmp_path):
    """What the README says: splice, train.py, convert; and the result is an adapter that PEFT loads."""
    export = "example/dynamo"
    adapter(export, tmp_path / "adapter")
    folder = splice(export, tmp_path / "adapter", "trainable", tmp_path / "training", "--ort-training")
    ids = [batch["input_ids"][0].tolist() for batch, _ in zip(batches(export), range(6))]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in ids))
    arguments = [PYTHON, folder / "train.py", "--data", tmp_path / "rows.jsonl", "--out", tmp_path / "trained"]
    arguments += ["--epochs", 3, "--batch-size", 2, "--max-length", 64, "--lr", RATE]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    result = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-2000:]
    losses = [float(line.rsplit(" ", 1)[1]) for line in result.stdout.splitlines() if line.startswith("epoch ")]
    assert len(losses) == 9 and sum(losses[-3:]) < sum(losses[:3])
    run("convert", tmp_path / "trained/model.onnx", tmp_path / "back")
    run("convert", tmp_path / "trained/checkpoint", tmp_path / "checkpoint")
    assert files(tmp_path / "checkpoint") == files(tmp_path / "back")
    before, after = (PeftModel.from_pretrained(base_model(export), tmp_path / name) for name in ("adapter", "back"))
    moved = [not torch.equal(one, other) for one, other in zip(before.parameters(), after.parameters())]
    lora = ["lora_" in name for name, _ in before.named_parameters()]
    assert moved == lora
