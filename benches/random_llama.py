"""Exports a Llama of any size with random weights, without ever holding them in memory.

    python benches/random_llama.py NAME FOLDER

writes model.onnx (torch.onnx, dynamo) with its weights beside it, and the configuration that PEFT builds the same model
from. NAME is one of SIZES.
"""

import sys
from pathlib import Path

import numpy as np
import onnx_ir
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

SIZES = {
    # The shape of Llama 3.2 1B, with a smaller vocabulary.
    "1b": dict(
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=32000,
        dtype="float16",
    ),
    # The shape of Llama 3.1 8B.
    "8b": dict(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        dtype="float16",
    ),
}
SIZES["8b-bf16"] = SIZES["8b"] | {"dtype": "bfloat16"}
# As tables call them.
NAMES = {"1b": "Llama of 1.07B, fp16", "8b": "Llama of 8.03B, fp16", "8b-bf16": "Llama of 8.03B, bf16"}
WEIGHTS = "model.onnx.data"
# Bytes above which a tensor is a weight, whatever the exporter calls it.
LARGE = 1 << 16


def config(name):
    return LlamaConfig(**SIZES[name], max_position_embeddings=4096, use_cache=False, tie_word_embeddings=False)


def export(config):
    """The exported program of a model whose weights were never written to."""
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model = model.to(getattr(torch, str(config.dtype).removeprefix("torch."))).to_empty(device="cpu").eval()
    model.model.rotary_emb = LlamaRotaryEmbedding(config)
    ids = torch.zeros(2, 8, dtype=torch.int64)
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    return torch.onnx.export(
        model,
        (ids, torch.ones_like(ids)),
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_shapes={"input_ids": shape, "attention_mask": shape},
        dynamo=True,
        optimize=True,
    ).model


def write(model, folder):
    """Writes the graph, and random values for its weights."""
    random = np.random.default_rng(0)
    # Drawing billions of normal numbers takes longer than everything else: one pool is read from many places.
    pool = random.standard_normal(1 << 24).astype(np.float32) * 0.02
    offset = 0
    with open(folder / WEIGHTS, "wb") as file:
        for name, value in model.graph.initializers.items():
            tensor = value.const_value
            if not (name.endswith("weight") or tensor.nbytes > LARGE):
                continue
            norm = len(tensor.shape) == 1
            place = int(random.integers(1 << 20))
            values = np.ones(tensor.size) if norm else np.resize(pool[place:], tensor.size)
            file.write(values.astype(tensor.dtype.numpy()).tobytes())
            value.const_value = onnx_ir.ExternalTensor(
                WEIGHTS, offset, tensor.nbytes, tensor.dtype, shape=tensor.shape, name=name, base_dir=folder
            )
            offset += tensor.nbytes
    onnx_ir.save(model, folder / "model.onnx")


def main():
    name, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    configuration = config(name)
    write(export(configuration), folder)
    configuration.save_pretrained(folder)


if __name__ == "__main__":
    main()
