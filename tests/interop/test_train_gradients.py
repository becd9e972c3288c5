"""The first gradient of `eva-onnx train`, entry by entry, beside that of PEFT in 64 bits.

A gradient is read off one step of AdamW. It is clipped to so small a norm that its entries are nothing beside AdamW's
epsilon: the step is then the gradient over epsilon, and not its sign.
"""

import gzip
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import torch
import transformers
from conftest import GRAPHS
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

CLIP, RATE, EPSILON = 1e-12, 1e8, 1e-8
# The largest difference, as a share of the largest entry of a tensor. The example adds n = 2,800 products on the way to
# the loss and as many on the way back, each off by u = 2^-24 at most and nearly independent: 3 sqrt(2 n) u = 1.4e-5 is
# what single entries could reach; this is what the project promises.
TOLERANCE = 1e-5
TOKENS = [[5, 9, 17, 22, 8, 3, 31], [30, 7, 7, 25, 23, 12, 19, 4, 2, 11], [14, 6, 29]]
CASES = {
    "example/dynamo": {},
    "example/optimum": {},
    "tiny/gpt2-dynamo": {"fan_in_fan_out": True},
    "tiny/gpt2-optimum": {"fan_in_fan_out": True},
    "tiny/bert-dynamo": {"modules_to_save": ["classifier"], "target_modules": r".*\.(query|key|value|dense)"},
    "tiny/bert-optimum": {"modules_to_save": ["classifier"], "target_modules": r".*\.(query|key|value|dense)"},
    "exports/llama/optimum": {},
    "exports/llama/dynamo-slim": {},
    "exports/genai-llama/fp32": {},
    "exports/genai-phi3/fp32": {},
    "exports/qwen3-moe/optimum": {},
    "exports/t5/optimum": {"target_modules": r"decoder\..*\.(q|k|v|o|wi_0|wi_1|wo)"},
}


def unpacked(export, folder):
    """The export and the folder of its checkpoint."""
    source = GRAPHS / export
    for path in source.iterdir():
        if path.suffix == ".gz":
            (folder / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        else:
            shutil.copy(path, folder)
    name = "decoder_model.onnx" if "t5" in export else "model.onnx"
    if export.startswith("exports/"):
        return folder / name, source.parent / "checkpoint"
    return folder / name, GRAPHS / export.replace("dynamo", "checkpoint").replace("optimum", "checkpoint")


def base_model(checkpoint):
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    return getattr(transformers, config.architectures[0]).from_pretrained(checkpoint).eval()


def rows(export):
    if "bert" in export:
        return [{"input_ids": ids, "label": at} for at, ids in enumerate(TOKENS)]
    if "t5" in export:
        return [{"input_ids": ids, "labels": [*reversed(ids), 1]} for ids in TOKENS]
    return [{"input_ids": ids} for ids in TOKENS]


def padded(lists, filler):
    longest = max(map(len, lists))
    return torch.tensor([values + [filler] * (longest - len(values)) for values in lists])


def loss_in_peft(model, export):
    batch = rows(export)
    ids = [row["input_ids"] for row in batch]
    if "bert" in export:
        labels = torch.tensor([row["label"] for row in batch])
    else:
        labels = padded([row.get("labels", row["input_ids"]) for row in batch], -100)
    mask = padded([[1] * len(row) for row in ids], 0)
    return model(input_ids=padded(ids, 0), attention_mask=mask, labels=labels).loss


def gradients_in_peft(folder, checkpoint, export):
    """By the names that PEFT gives the tensors in a file."""
    model = PeftModel.from_pretrained(base_model(checkpoint), folder, is_trainable=True).double().eval()
    loss_in_peft(model, export).backward()
    named = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            name = name.replace("modules_to_save.default.", "").replace(".default", "")
            gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            named[name] = gradient.numpy()
    return named


@pytest.mark.parametrize("export", CASES)
def test_every_entry_of_the_gradient_is_that_of_peft(export, tmp_path):
    graph, checkpoint = unpacked(export, tmp_path)
    torch.manual_seed(1)
    config = {"target_modules": "all-linear", **CASES[export]}
    model = get_peft_model(base_model(checkpoint), LoraConfig(r=4, lora_alpha=6, **config))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "start")
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows(export)))
    arguments = ["train", graph, "--data", data, "--adapter", tmp_path / "start", "--keep-order", "--steps", 1, "--lr", RATE,
                 "--schedule", "constant", "--clip", CLIP, "--out", tmp_path / "out", "--device", "cpu", "--quiet"]
    arguments += ["--checkpoint", checkpoint] if "slim" in export else []
    subprocess.run([os.environ["EVA_ONNX"], *map(str, arguments)], check=True)

    (step,) = json.loads((tmp_path / "out/train.json").read_text())["steps"]
    start, end = (load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("start", "out"))
    wanted = gradients_in_peft(tmp_path / "start", checkpoint, export)
    assert wanted.keys() == end.keys()
    for name, expected in wanted.items():
        change = (start[name].double() - end[name].double()).numpy()
        clipped = EPSILON * change / (RATE - np.abs(change))
        actual = clipped * (step["norm"] + 1e-6) / CLIP
        difference = np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-30)
        assert difference <= TOLERANCE, f"{name}: {difference:.1e}"
