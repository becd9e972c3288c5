"""Adapters trained by eva-onnx on ONNX Runtime, beside the same training in PEFT."""

import json
import os
import subprocess

import numpy as np
import pytest
import torch
from conftest import BATCH_SIZE, GRAPHS, ROWS, base_model, batches, rows
from peft import LoraConfig, PeftModel, get_peft_model

EXPORTS = ["example/dynamo", "example/optimum", "tiny/gpt2-dynamo", "tiny/gpt2-optimum"]
STEPS, RATE, CLIP = 50, 1e-3, 1.0
# Losses of the same steps. What ONNX Runtime and PyTorch round differently in one gradient, about 1e-6 of it, moves a
# parameter by at most that share of the rate, except where the gradient is next to nothing and AdamW divides it by
# itself; over 50 steps the losses stay within 1e-4 of each other.
LOSS_TOLERANCE = 1e-4
# The norm of one gradient in 32 bits against one in 64: n = 2,800 products on the way through the example and back
# again, each off by u = 2^-24 at most and nearly independent: 3 sqrt(2 n) u = 1.4e-5.
NORM_TOLERANCE = 1.4e-5


@pytest.fixture(scope="module", params=EXPORTS)
def trained(request, tmp_path_factory):
    """What eva-onnx made of an adapter in 50 steps, and what PEFT made of it."""
    export = request.param
    folder = tmp_path_factory.mktemp("trained")
    config = LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", fan_in_fan_out="gpt2" in export)
    torch.manual_seed(1)
    model = get_peft_model(base_model(export), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.02 * torch.randn_like(parameter)
    model.save_pretrained(folder / "start")
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows(export)))
    arguments = ["train", GRAPHS / export / "model.onnx", "--data", data, "--adapter", folder / "start"]
    arguments += ["--keep-order", "--batch-size", BATCH_SIZE, "--steps", STEPS, "--schedule", "constant", "--lr", RATE]
    arguments += ["--clip", CLIP, "--out", folder / "trained", "--device", "cpu", "--quiet"]
    subprocess.run([os.environ["EVA_ONNX"], *map(str, arguments)], check=True)
    report = json.loads((folder / "trained/train.json").read_text())
    start = PeftModel.from_pretrained(base_model(export), folder / "start", is_trainable=True)
    return export, report, folder / "trained", *train_in_peft(start, export)


def train_in_peft(model, export):
    """The loss of each step and the norm of the first gradient in 64 bits."""
    norm = gradient_norm(model.double(), next(iter(batches(export))))
    model.float().eval()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0)
    losses = []
    while len(losses) < STEPS:
        for batch in batches(export):
            if len(losses) == STEPS:
                break
            loss = loss_of(model, batch)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            losses.append(loss.item())
    return losses, norm, model


def loss_of(model, batch):
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return model(**batch, labels=labels).loss


def gradient_norm(model, batch):
    model.eval()
    loss_of(model, batch).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.sqrt(sum((gradient**2).sum() for gradient in gradients)).item()
    model.zero_grad()
    return norm


def test_the_first_gradient_is_as_long_as_that_of_peft(trained):
    _, report, _, _, norm, _ = trained
    assert abs(report["steps"][0]["norm"] - norm) <= NORM_TOLERANCE * norm


def test_each_step_has_the_loss_that_peft_has(trained):
    _, report, _, losses, _, _ = trained
    ours = np.array([step["loss"] for step in report["steps"]])
    assert np.abs(ours - losses).max() <= LOSS_TOLERANCE
    epoch = ROWS // BATCH_SIZE
    assert (ours[2 * epoch : 3 * epoch] < ours[:epoch]).all()


def test_peft_loads_what_was_trained(trained):
    export, _, folder, _, _, model = trained
    loaded = PeftModel.from_pretrained(base_model(export), folder).eval()
    batch = next(iter(batches(export)))
    with torch.no_grad():
        difference = abs(loss_of(loaded, batch) - loss_of(model, batch)).item()
    assert difference <= LOSS_TOLERANCE
