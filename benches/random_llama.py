"""Exports a Llama of any size with random weights, without ever holding them in memory.

    python benches/random_llama.py NAME FOLDER [--layers N] [--hidden N] [--repeat] [--bits 4]

writes model.onnx (torch.onnx, dynamo) with its weights beside it, and the configuration that PEFT builds the same model
from. NAME is one of SIZES.

With --repeat, all layers have the weights of the first one: they refer to the same bytes of the file, which is as small
as the embedding, the head and one layer. With --bits 4, products are MatMulNBits of blocks of 32. Both are for
measurements of time and memory alone, of a model of 70B for instance: PEFT cannot load them.
"""

import argparse
import re
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
    # The shape of Llama 3.1 70B.
    "70b": dict(
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
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
LARGE = 1 << 12
# Weights that share a scale in MatMulNBits.
BLOCK = 32


def config(name, layers=None, hidden=None):
    """The configuration of a size, with another number of layers, or as many features, if that is given."""
    size = dict(SIZES[name])
    if layers:
        size["num_hidden_layers"] = layers
    if hidden:
        # Heads are as wide as before, and the vocabulary of a small model is small.
        width = size["hidden_size"] // size["num_attention_heads"]
        heads = max(hidden // width, 1)
        key_value = max(heads * size["num_key_value_heads"] // size["num_attention_heads"], 1)
        ratio = hidden / size["hidden_size"]
        size |= dict(
            hidden_size=hidden,
            head_dim=width,
            intermediate_size=int(size["intermediate_size"] * ratio) // BLOCK * BLOCK,
            num_attention_heads=heads,
            num_key_value_heads=key_value,
            vocab_size=max(int(size["vocab_size"] * ratio), 1024),
        )
    return LlamaConfig(**size, max_position_embeddings=4096, use_cache=False, tie_word_embeddings=False)


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


def is_weight(name, tensor):
    return name.endswith("weight") or tensor.nbytes > LARGE


def without_number(name):
    """The name of a weight, which is the same for all layers."""
    return re.sub(r"\.layers\.\d+\.", ".layers.", name)


class File:
    """The file of the weights, which is written to at its end."""

    def __init__(self, folder, repeat):
        self.folder, self.repeat = folder, repeat
        self.file = open(folder / WEIGHTS, "wb")
        self.written = {}

    def add(self, name, dtype, shape, values):
        """A tensor of the file. `values` makes its elements, unless those of another layer are there already."""
        key = (without_number(name), tuple(shape)) if self.repeat else name
        if key not in self.written:
            data = values().astype(dtype.numpy()).tobytes()
            self.written[key] = (self.file.tell(), len(data))
            self.file.write(data)
        offset, length = self.written[key]
        return onnx_ir.ExternalTensor(WEIGHTS, offset, length, dtype, shape=onnx_ir.Shape(shape), name=name, base_dir=self.folder)


def products(model):
    """The products with weights: node, name of the weight, and features in and out."""
    for node in list(model.graph):
        if node.op_type != "MatMul" or node.domain:
            continue
        right, turned = node.inputs[1], False
        producer = right.producer()
        if producer is not None and producer.op_type == "Transpose":
            right, turned = producer.inputs[0], True
        if right.const_value is not None and len(right.const_value.shape) == 2:
            rows, columns = right.const_value.shape
            yield node, right, (columns, rows) if turned else (rows, columns)


def quantize(model, file, random):
    """Replaces products with weights by MatMulNBits with random numbers of 4 bits."""
    graph = model.graph
    for node, weight, (features, outputs) in products(model):
        name, blocks = weight.name, features // BLOCK
        packed = lambda: random.integers(0, 256, outputs * blocks * BLOCK // 2, dtype=np.uint8)
        # Numbers of 4 bits about 8 have a deviation of 4.6.
        scales = lambda: np.full(outputs * blocks, 0.02 / 4.6)
        dtype = weight.const_value.dtype
        parts = [
            (f"{name}_Q4", onnx_ir.DataType.UINT8, (outputs, blocks, BLOCK // 2), packed),
            (f"{name}_scales", dtype, (outputs * blocks,), scales),
        ]
        values = []
        for part, of_type, shape, make in parts:
            tensor = file.add(part, of_type, shape, make)
            value = onnx_ir.Value(name=part, const_value=tensor, type=onnx_ir.TensorType(of_type), shape=tensor.shape)
            graph.register_initializer(value)
            values.append(value)
        attributes = dict(K=features, N=outputs, bits=4, block_size=BLOCK)
        new = onnx_ir.node(
            "MatMulNBits",
            [node.inputs[0], *values],
            attributes,
            domain="com.microsoft",
            name=node.name,
            metadata_props=dict(node.metadata_props),
        )
        old, result = node.outputs[0], new.outputs[0]
        result.name, result.type, result.shape = old.name, old.type, old.shape
        graph.insert_after(node, new)
        onnx_ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
        turned = node.inputs[1].producer()
        graph.remove(node, safe=True)
        if turned is not None and not turned.outputs[0].uses():
            graph.remove(turned, safe=True)
        if not weight.uses():
            del graph.initializers[weight.name]
    model.opset_imports["com.microsoft"] = 1


def write(model, folder, repeat=False, bits=16):
    """Writes the graph, and random values for its weights."""
    random = np.random.default_rng(0)
    # Drawing billions of normal numbers takes longer than everything else: one pool is read from many places.
    pool = random.standard_normal(1 << 24).astype(np.float32) * 0.02
    file = File(folder, repeat)
    if bits == 4:
        quantize(model, file, random)
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if not is_weight(name, tensor) or isinstance(tensor, onnx_ir.ExternalTensor):
            continue
        norm = len(tensor.shape) == 1
        place = int(random.integers(1 << 20))
        values = lambda: np.ones(tensor.size) if norm else np.resize(pool[place:], tensor.size)
        value.const_value = file.add(name, tensor.dtype, [int(size) for size in tensor.shape], values)
    file.file.close()
    onnx_ir.save(model, folder / "model.onnx")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SIZES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--hidden", type=int)
    parser.add_argument("--repeat", action="store_true")
    parser.add_argument("--bits", type=int, choices=(4, 16), default=16)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    configuration = config(args.name, args.layers, args.hidden)
    write(export(configuration), args.folder, args.repeat, args.bits)
    configuration.save_pretrained(args.folder)


if __name__ == "__main__":
    main()
