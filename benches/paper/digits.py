"""A small ViT that knows the digits 0 to 4 and learns 5 to 9 (scikit-learn's digits, 8 x 8 pixels).

PyTorch trains the first model and exports it with a new head; eva-onnx does the rest.
"""

import json

import numpy as np
import onnxruntime
import torch
from sklearn.datasets import load_digits
from transformers import ViTConfig, ViTForImageClassification

from starts import Task

KNOWN = 5
HELD_OUT = 0.3
PRETRAINING = {"epochs": 40, "batch": 64, "rate": 1e-3}


def split(seed=0):
    """Pictures [rows, 1, 8, 8] from -1 to 1 and digits, in a fixed order."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    pictures = (digits.images[order, None] / 8 - 1).astype(np.float32)
    return pictures, digits.target[order]


def pretrained():
    """A ViT trained on the digits below KNOWN."""
    torch.manual_seed(0)
    # Models as small as these are slower on several threads.
    torch.set_num_threads(1)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
    model = ViTForImageClassification(ViTConfig(image_size=8, patch_size=2, num_channels=1, num_labels=KNOWN, **sizes))
    pictures, targets = (torch.from_numpy(values[split()[1] < KNOWN]) for values in split())
    optimizer = torch.optim.AdamW(model.parameters(), lr=PRETRAINING["rate"])
    for _ in range(PRETRAINING["epochs"]):
        for batch in torch.randperm(len(targets)).split(PRETRAINING["batch"]):
            optimizer.zero_grad()
            model(pixel_values=pictures[batch], labels=targets[batch]).loss.backward()
            optimizer.step()
    return model.eval()


def export(model, folder):
    """Writes the model with a new, random head, as it is before it learns the other digits."""
    torch.manual_seed(1)
    model.classifier = torch.nn.Linear(model.config.hidden_size, KNOWN)
    folder.mkdir(parents=True, exist_ok=True)
    program = torch.onnx.export(
        model,
        kwargs={"pixel_values": torch.zeros(2, 1, 8, 8)},
        dynamo=True,
        output_names=["logits"],
        dynamic_shapes={"pixel_values": {0: "batch"}},
        verbose=False,
    )
    program.save(folder / "model.onnx")
    model.config.save_pretrained(folder)


def task(options, work):
    model = work / "model/model.onnx"
    if not model.is_file():
        export(pretrained(), model.parent)
    pictures, targets = split()
    new = targets >= KNOWN
    pictures, targets = pictures[new], targets[new] - KNOWN
    test = round(HELD_OUT * len(targets))
    write(work / "held-out.jsonl", pictures[:test], targets[:test])
    write(work / "rows.jsonl", pictures[test:], targets[test:])
    return Task(
        name="digits",
        model=model,
        rows=work / "rows.jsonl",
        held_out=work / "held-out.jsonl",
        rank=4,
        rate=1e-3,
        rates=[1e-3, 3e-3, 1e-2, 3e-2],
        steps=100 if options.quick else 300,
        batch_size=16,
        init_batches=20,
        training=["--loss", "single-label-classification", "--train-modules", "classifier"],
    )


def write(path, pictures, targets):
    with path.open("w") as file:
        for picture, target in zip(pictures.tolist(), targets.tolist()):
            file.write(json.dumps({"pixel_values": picture, "label": target}) + "\n")


def accuracy(program, task, folder):
    """The share of held-out pictures whose digit is the likeliest."""
    session = onnxruntime.InferenceSession(str(program.merged(task, folder)), providers=["CPUExecutionProvider"])
    made = [json.loads(line) for line in open(task.held_out)]
    pictures = np.array([row["pixel_values"] for row in made], dtype=np.float32)
    (logits,) = session.run(["logits"], {"pixel_values": pictures})
    return float(np.mean(logits.argmax(1) == [row["label"] for row in made]))
