"""The losses of `eva-onnx train` beside those of transformers' classes, and the heads that it trains in PEFT."""

import gzip
import json
import os
import shutil
import subprocess

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from conftest import GRAPHS, base_model
from peft import LoraConfig, PeftModel, get_peft_model
from test_train import CLIP, LOSS_TOLERANCE, RATE

STEPS, ROWS, BATCH_SIZE = 24, 16, 4
# Logits of one adapter in ONNX Runtime and in PyTorch, as a share of the largest: see test_splice.
LOGITS = 1e-5
LABELS = {
    "single_label_classification": lambda row: row % 3 if row % 5 else -100,
    "multi_label_classification": lambda row: [float(row % 2), row % 3 / 2, float(row % 5 == 0)],
    "regression": lambda row: [row / 8 - 1, 0.5, -row / 16],
}


def run(*arguments):
    subprocess.run([os.environ["EVA_ONNX"], *map(str, arguments)], check=True)


def token_rows(vocabulary):
    """Rows of different lengths."""
    generator = np.random.default_rng(7)
    return [generator.integers(2, vocabulary, 5 + row % 7).tolist() for row in range(ROWS)]


def padded(rows, filler=0):
    longest = max(map(len, rows))
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])


def batched(rows):
    """What transformers reads of each batch, labels included."""
    for start in range(0, ROWS, BATCH_SIZE):
        batch = rows[start : start + BATCH_SIZE]
        ids = [row["input_ids"] for row in batch]
        mask = padded([[1] * len(row) for row in ids])
        labels = [row["labels"] for row in batch]
        is_of_tokens = isinstance(labels[0], list) and isinstance(labels[0][0], int)
        yield {
            "input_ids": padded(ids),
            "attention_mask": mask,
            "labels": padded(labels, -100) if is_of_tokens else torch.tensor(labels),
        }


def train_in_peft(model, rows):
    """The loss of each step."""
    model.eval()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0)
    losses = []
    for step in range(STEPS):
        batch = list(batched(rows))[step % (ROWS // BATCH_SIZE)]
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        losses.append(loss.item())
    return losses


def start_in_peft(base, folder, **config):
    """Saves an adapter whose B is not zero, and loads it to train."""
    torch.manual_seed(1)
    model = get_peft_model(base(), LoraConfig(r=4, lora_alpha=6, **config))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.02 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return PeftModel.from_pretrained(base(), folder, is_trainable=True)


def train_here(graph, rows, start, out):
    data = out.with_suffix(".jsonl")
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run("train", graph, "--data", data, "--adapter", start, "--keep-order", "--batch-size", BATCH_SIZE, "--steps", STEPS,
        "--schedule", "constant", "--lr", RATE, "--clip", CLIP, "--out", out, "--device", "cpu", "--quiet")
    return [step["loss"] for step in json.loads((out / "train.json").read_text())["steps"]]


@pytest.fixture(scope="module", params=["tiny/bert-optimum", "tiny/bert-dynamo"])
def classifier(request):
    return request.param


@pytest.mark.parametrize("problem", LABELS)
def test_classifiers_and_their_heads(classifier, problem, tmp_path):
    shutil.copytree(GRAPHS / classifier, tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    (tmp_path / "model/config.json").write_text(json.dumps({**config, "problem_type": problem}))
    rows = [{"input_ids": ids, "labels": LABELS[problem](row)} for row, ids in enumerate(token_rows(config["vocab_size"]))]

    def base():
        model = base_model(classifier)
        model.config.problem_type = problem
        return model

    targets = r".*\.(query|key|value|dense)"
    model = start_in_peft(base, tmp_path / "start", target_modules=targets, modules_to_save=["classifier"])
    ours = train_here(tmp_path / "model/model.onnx", rows, tmp_path / "start", tmp_path / "trained")
    theirs = train_in_peft(model, rows)
    assert np.abs(np.array(ours) - theirs).max() <= LOSS_TOLERANCE

    # What was trained, in PEFT and in ONNX Runtime.
    loaded = PeftModel.from_pretrained(base(), tmp_path / "trained").eval()
    head = loaded.base_model.model.classifier
    assert not torch.equal(head.modules_to_save["default"].weight, head.original_module.weight)
    run("splice", tmp_path / "model/model.onnx", tmp_path / "trained", "--as", "merged", "--out", tmp_path / "merged")
    session = onnxruntime.InferenceSession(tmp_path / "merged/model.onnx", providers=["CPUExecutionProvider"])
    batch = next(batched(rows))
    del batch["labels"]
    fed = {value.name: batch.get(value.name, torch.zeros_like(batch["input_ids"])).numpy() for value in session.get_inputs()}
    (actual,) = session.run(["logits"], fed)
    with torch.no_grad():
        expected = loaded(**batch).logits.numpy()
    assert np.abs(actual - expected).max() <= LOGITS * np.abs(expected).max()


@pytest.mark.parametrize("graph", ["decoder_model", "decoder_model_merged"])
def test_decoders_beside_their_encoder(graph, tmp_path):
    source = GRAPHS / "exports/t5/optimum"
    for path in source.iterdir():
        if path.suffix == ".gz":
            (tmp_path / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        else:
            shutil.copy(path, tmp_path)
    ids = token_rows(40)
    rows = [{"input_ids": row, "labels": [*ids[-1 - at][: 3 + at % 4], -100, 1]} for at, row in enumerate(ids)]

    def base():
        return transformers.T5ForConditionalGeneration.from_pretrained(source.parent / "checkpoint").eval()

    model = start_in_peft(base, tmp_path / "start", target_modules=r"decoder\..*\.(q|k|v|o|wi_0|wi_1|wo)")
    ours = train_here(tmp_path / f"{graph}.onnx", rows, tmp_path / "start", tmp_path / "trained")
    assert np.abs(np.array(ours) - train_in_peft(model, rows)).max() <= LOSS_TOLERANCE
