"""Adapters made by eva-onnx from the committed graphs, and the PyTorch models that they belong to.

EVA_ONNX is the binary under test. PEFT_VERSION, if set, is the version of PEFT that must be the one imported.
"""

import functools
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
GRAPHS = ROOT / "graphs"
MODELS, EXPORTERS = ("example/", "tiny/gpt2-", "tiny/bert-"), ("dynamo", "optimum")
EXPORTS = [model + exporter for model in MODELS for exporter in EXPORTERS]
ROWS, MAX_TOKENS, BATCH_SIZE = 64, 128, 4


def pytest_configure():
    wanted = os.environ.get("PEFT_VERSION", peft.__version__)
    if peft.__version__ != wanted:
        raise pytest.UsageError(f"PEFT {wanted} is wanted, but {peft.__version__} was imported")


def pytest_report_header():
    return f"peft {peft.__version__}, torch {torch.__version__}, transformers {transformers.__version__}"


@dataclass
class Adapter:
    """What eva-onnx wrote."""

    export: str
    folder: Path
    report: dict
    tensors: dict

    @property
    def layers(self):
        return {layer["module"]: layer for layer in self.report["layers"]}

    @property
    def first_of_groups(self):
        """One module for every distinct input."""
        return list({layer["group"]: layer["module"] for layer in reversed(self.report["layers"])}.values())

    def a(self, module):
        return self.tensors[f"base_model.model.{module}.lora_A.weight"]


@pytest.fixture(scope="session")
def init(tmp_path_factory):
    """Runs `eva-onnx init` on an export, once for every set of options."""

    @functools.cache
    def make(export, *options):
        folder = tmp_path_factory.mktemp("adapters")
        data = folder / "rows.jsonl"
        data.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows(export)))
        arguments = [os.environ["EVA_ONNX"], "init", GRAPHS / export / "model.onnx", "--data", data, "--keep-order"]
        arguments += ["--batch-size", BATCH_SIZE, "--out", folder / "adapter", "--device", "cpu", "--quiet", *options]
        subprocess.run(list(map(str, arguments)), check=True)
        report = json.loads((folder / "adapter/eva.json").read_text())
        return Adapter(export, folder / "adapter", report, load_file(folder / "adapter/adapter_model.safetensors"))

    return make


@functools.cache
def rows(export):
    """Token ids of the first calibration rows."""
    tokenizer = Tokenizer.from_file(str(GRAPHS / export / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    with open(ROOT / "fixtures/calibration.jsonl") as file:
        examples = [json.loads(next(file)) for _ in range(ROWS)]
    return [tokenizer.encode(f"{row['question']}\n{row['answer']}").ids for row in examples]


def batches(export):
    """The rows as eva-onnx batches them: in file order, padded on the right."""
    tensors = list(map(torch.tensor, rows(export)))
    for start in range(0, len(tensors), BATCH_SIZE):
        batch = tensors[start : start + BATCH_SIZE]
        masks = [torch.ones_like(row) for row in batch]
        pad = functools.partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
        yield {"input_ids": pad(batch), "attention_mask": pad(masks)}


def base_model(export):
    """The PyTorch model that was exported."""
    checkpoint = GRAPHS / export.replace("dynamo", "checkpoint").replace("optimum", "checkpoint")
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    return getattr(transformers, config.architectures[0]).from_pretrained(checkpoint).eval()
