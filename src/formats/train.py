#!/usr/bin/env python3
"""Trains the adapter in this folder with ONNX Runtime Training.

    pip install onnxruntime-training-cpu==1.19.2 onnx==1.16.2 'numpy<2'     # Python 3.11 or 3.12, Linux or Windows
    python train.py --data rows.jsonl --out trained
    eva-onnx convert trained/model.onnx adapter                             # back to PEFT

Rows are JSON objects with `input_ids` (and `labels`, a list for a language model, one number for a classifier), or with
`text` if `pip install tokenizers` is there and tokenizer.json is in this folder. Labels of -100 do not count; without
labels a language model learns all its tokens.

Legacy: 1.19.2 (September 2024) is the last release of ONNX Runtime Training. It needs no PyTorch here.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import types
from pathlib import Path

import numpy as np

try:
    import torch  # noqa: F401
except ImportError:
    # onnxruntime.training imports it, and uses it only in parts that are not used here. The first import looks for
    # PyTorch too, and must not find the stand-in.
    import onnxruntime.tools  # noqa: F401

    def anything(_, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type("Anything", (type,), {"__getattr__": anything})(name, (), {})

    stand_in = type("StandIn", (types.ModuleType,), {"__getattr__": anything})
    sys.modules["torch"] = stand_in("torch")

HERE = Path(__file__).resolve().parent
IGNORED = -100
# Artifacts with the frozen weights inside are protobuf files, which end at two gigabytes.
LIMIT = 1_900_000_000


def make_artifacts(folder, artifacts, learning=(0.9, 0.999, 1e-8), weight_decay=0.0):
    """Writes training_model.onnx, eval_model.onnx, optimizer_model.onnx and checkpoint."""
    import onnx
    from onnxruntime.training import artifacts as builder
    from onnxruntime.training import onnxblock

    manifest = json.loads((folder / "manifest.json").read_text())
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    model = str(folder / "model.onnx")
    frozen = manifest["frozen"] if size > LIMIT else []
    first, second, epsilon = learning
    optimizer = onnxblock.optim.AdamW(betas=(first, second), eps=epsilon, weight_decay=weight_decay)
    builder.generate_artifacts(
        model if size > LIMIT else onnx.load(model),
        requires_grad=manifest["trainable"],
        frozen_params=frozen,
        loss=None,
        optimizer=optimizer,
        artifact_directory=str(artifacts),
    )
    # Newer versions of the onnx package write a format that 1.19.2 does not read.
    path = artifacts / "optimizer_model.onnx"
    proto = onnx.load(path)
    if proto.ir_version > 10:
        proto.ir_version = 8
        onnx.save(proto, path)
    return manifest


def load(artifacts):
    """The module in training mode, its optimizer and its parameters."""
    from onnxruntime.training.api import CheckpointState, Module, Optimizer

    state = CheckpointState.load_checkpoint(str(artifacts / "checkpoint"))
    module = Module(str(artifacts / "training_model.onnx"), state, str(artifacts / "eval_model.onnx"))
    optimizer = Optimizer(str(artifacts / "optimizer_model.onnx"), module)
    module.train()
    return module, optimizer, state


def feed(manifest, batch):
    """The inputs of the training model in their order."""
    rows, length = batch["input_ids"].shape
    known = {
        "position_ids": np.tile(np.arange(length, dtype=np.int64), (rows, 1)),
        "token_type_ids": np.zeros((rows, length), dtype=np.int64),
        **batch,
    }
    values = []
    for given in manifest["inputs"]:
        name = given["name"]
        if name.startswith("past"):
            # An empty cache: the first symbol is the batch, the others are lengths.
            shape = [size if isinstance(size, int) else 0 for size in given["shape"]]
            values.append(np.zeros([rows, *shape[1:]], dtype=np.float32))
        elif name in known:
            values.append(known[name])
        else:
            sys.exit(f"error: the model asks for `{name}`, which this script does not know: add it to feed()")
    return values


def rows_of(path, manifest, max_length):
    """Token ids and labels of every row."""
    tokenizer = None
    with open(path) as file:
        for number, line in enumerate(file, 1):
            row = json.loads(line)
            if "input_ids" not in row:
                if tokenizer is None:
                    from tokenizers import Tokenizer

                    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
                    tokenizer.no_padding()
                if "text" not in row:
                    sys.exit(f"error: {path}:{number} has neither `input_ids` nor `text`")
                row["input_ids"] = tokenizer.encode(row["text"]).ids
            ids = row["input_ids"][:max_length]
            if manifest["task"] == "causal-lm":
                yield ids, (row.get("labels") or row["input_ids"])[:max_length]
            elif "labels" not in row and "label" not in row:
                sys.exit(f"error: {path}:{number} has no `labels`")
            else:
                yield ids, row.get("labels", row.get("label"))


def pad(rows, manifest):
    """A batch: padded on the right, padding masked and without labels."""
    length = max(len(ids) for ids, _ in rows)
    fill = lambda values, value: list(values) + [value] * (length - len(values))
    batch = {
        "input_ids": np.array([fill(ids, 0) for ids, _ in rows], dtype=np.int64),
        "attention_mask": np.array([fill([1] * len(ids), 0) for ids, _ in rows], dtype=np.int64),
    }
    causal = manifest["task"] == "causal-lm"
    labels = [fill(labels, IGNORED) if causal else labels for _, labels in rows]
    batch["labels"] = np.array(labels, dtype=np.int64)
    return batch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="rows, jsonl")
    parser.add_argument("--out", type=Path, default=Path("trained"), help="folder for the trained model")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--steps", type=int, help="stop after so many steps")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.out.exists() and any(args.out.iterdir()):
        sys.exit(f"error: {args.out} exists and is not empty")

    from onnxruntime.training.api import CheckpointState

    with tempfile.TemporaryDirectory() as folder:
        artifacts = Path(folder)
        manifest = make_artifacts(HERE, artifacts, weight_decay=args.weight_decay)
        module, optimizer, state = load(artifacts)
        optimizer.set_learning_rate(args.lr)
        rows = list(rows_of(args.data, manifest, args.max_length))
        shuffle = random.Random(args.seed)
        step = 0
        for epoch in range(args.epochs):
            shuffle.shuffle(rows)
            for start in range(0, len(rows), args.batch_size):
                if args.steps is not None and step >= args.steps:
                    break
                loss, *_ = module(*feed(manifest, pad(rows[start : start + args.batch_size], manifest)))
                optimizer.step()
                module.lazy_reset_grad()
                step += 1
                print(f"epoch {epoch + 1} step {step} loss {float(loss):.4f}", flush=True)
        args.out.mkdir(parents=True, exist_ok=True)
        module.export_model_for_inferencing(str(args.out / "model.onnx"), [manifest["logits"]])
        CheckpointState.save_checkpoint(state, str(args.out / "checkpoint"))
    for name in ["manifest.json", "config.json", "tokenizer.json"]:
        if (HERE / name).exists():
            shutil.copy(HERE / name, args.out / name)
    print(f"written to {args.out}; eva-onnx convert {args.out / 'model.onnx'} adapter")


if __name__ == "__main__":
    main()
