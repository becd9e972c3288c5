"""Writes one small model for each way in which a linear layer can be stored: the folders of graphs/exports.

    python graphs/make_exports.py
    python graphs/make_exports.py genai    (with the versions of requirements-genai.txt, after the first)

Each model has a checkpoint, `inputs.safetensors` (what every linear layer of the PyTorch model read for the tokens in
it) and one folder for each export. `linears.json` beside a graph lists the layers by node: the modules that the node
computes, each with its columns, found by comparing values with the checkpoint. Quantised graphs keep the nodes of the
graph that they are made of, so their lists are made of its list.
"""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from safetensors.numpy import load_file
from safetensors.torch import save_file

EXPORTS = Path(__file__).resolve().parent / "exports"
VOCABULARY, POSITIONS, WIDTH = 40, 32, 16
TOKENS = {"input_ids": torch.tensor([[5, 9, 2, 31, 17, 8, 22], [3, 39, 12, 6, 28, 14, 33]])}
SUFFIX = re.compile(r"(_quant|_Q4|_Q8|_DQ_Q4|_matmul_Q4|_Bnb4)+$")


def randomised(model):
    """Norms and biases that differ from each other: exporters merge equal tensors and lose their names."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def save(model, name, fed=TOKENS):
    """Writes the checkpoint and what the linear layers read: one tensor for each module, all its calls in it."""
    folder = EXPORTS / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder / "checkpoint")
    seen = {}

    def hook(path):
        def keep(_, inputs):
            seen.setdefault(path, []).append(inputs[0].detach().reshape(-1, inputs[0].shape[-1]))

        return keep

    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(hook(path))
    inputs = dict(fed)
    if hasattr(model, "config") and "input_ids" in inputs:
        inputs["attention_mask"] = torch.ones_like(TOKENS["input_ids"])
    if getattr(model, "config", None) and model.config.is_encoder_decoder and "input_ids" in inputs:
        inputs["decoder_input_ids"] = TOKENS["input_ids"][:, :5].contiguous()
    with torch.no_grad():
        model(**inputs)
    tensors = {path: torch.cat(rows).contiguous() for path, rows in seen.items()}
    save_file({**tensors, **{f"inputs.{name}": value for name, value in inputs.items()}}, folder / "inputs.safetensors")
    return folder


def truth(graph, folder, checkpoint):
    """The layers of a float graph: by node and scope, the modules with equal values and their columns."""
    weights = {}
    for file in sorted(Path(checkpoint).glob("*.safetensors")):
        weights.update({name: value for name, value in load_file(file).items() if value.ndim == 2})
    rows, pending = [], [(graph.graph, [], {})]
    while pending:
        scope, path, outer = pending.pop(0)
        constants = dict(outer)
        for tensor in scope.initializer:
            constants[tensor.name] = numpy_helper.to_array(tensor, str(folder))
        for node in scope.node:
            follow(node, constants)
            found = modules(node, constants, weights)
            if found:
                rows.append({"node": node.name, "scope": path, "modules": found})
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    pending.append((attribute.g, [*path, f"{node.name}.{attribute.name}"], constants))
    return rows


def follow(node, constants):
    """Adds the result of a node to the constants if it only hands one on."""
    if node.op_type == "Constant":
        values = {a.name: a for a in node.attribute}
        if "value" in values:
            constants[node.output[0]] = numpy_helper.to_array(values["value"].t)
    elif node.op_type in ("Identity", "Transpose") and node.input[0] in constants:
        value = constants[node.input[0]]
        constants[node.output[0]] = value.T if node.op_type == "Transpose" and value.ndim == 2 else value


def modules(node, constants, weights):
    """The modules that a product computes, in the order of its columns; none if its weight is of no module."""
    if node.op_type not in ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "Attention") or node.input[1] not in constants:
        return []
    weight = constants[node.input[1]]
    if weight.ndim != 2:
        return []
    flags = {a.name: a.i for a in node.attribute}
    weight = weight if flags.get("transB") else weight.T
    found, start = [], 0
    while start < len(weight):
        rest = weight[start:]
        fits = [
            (name, len(value))
            for name, value in weights.items()
            if name.endswith(".weight") and not is_embedding(name) and value.shape[1] == weight.shape[1]
            and len(value) <= len(rest) and np.array_equal(value, rest[: len(value)])
        ]
        if not fits and start == 0:
            return slices(weight, weights)
        if len(fits) != 1:
            return []
        name, size = fits[0]
        whole = size == len(weight)
        found.append({"module": name.removesuffix(".weight"), "columns": None if whole else [start, start + size]})
        start += size
    return found


def slices(weight, weights):
    """The module of which the weight is a part."""
    for name, value in weights.items():
        if is_embedding(name) or not name.endswith(".weight") or value.shape[1] != weight.shape[1]:
            continue
        for start in range(len(value) - len(weight) + 1):
            if np.array_equal(value[start : start + len(weight)], weight):
                part = [start, start + len(weight), len(value)]
                return [{"module": name.removesuffix(".weight"), "columns": None, "slice": part}]
    return []


def is_embedding(name):
    return any(part in name for part in ("embed_tokens", "_embeddings.", "shared.weight", "wte", "wpe"))


def finish(folder, checkpoint, file="model.onnx", source=None):
    """Writes the list of layers: by value, or that of the graph that this one was made of."""
    graph = onnx.load(folder / file)
    known = {row["node"]: row["modules"] for row in json.loads(source.read_text())} if source else None
    if known is None:
        rows = truth(graph, folder, checkpoint)
    else:
        rows = [{"node": n.name, "scope": [], "modules": known[SUFFIX.sub("", n.name).replace("Gemm_MatMul", "Gemm")]}
                for n in graph.graph.node if SUFFIX.sub("", n.name).replace("Gemm_MatMul", "Gemm") in known
                and n.op_type in PRODUCTS]
        assert len(rows) == len(known), (folder, len(rows), len(known))
    name = "linears.json" if file == "model.onnx" else file.replace(".onnx", ".linears.json")
    (folder / name).write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    for extra in ("generation_config.json", "special_tokens_map.json", "tokenizer_config.json", "tokenizer.json"):
        (folder / extra).unlink(missing_ok=True)
    print(f"{folder.parent.name}/{folder.name}/{file}: {len(rows)} layers")


PRODUCTS = {"MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "QGemm", "MatMulNBits", "MatMulBnb4", "FusedMatMul"}


def optimum(folder, task, **options):
    from optimum.exporters.onnx import main_export

    target = folder / "optimum"
    main_export(str(folder / "checkpoint"), target, task=task, dtype="fp32", library_name="transformers",
                do_validation=False, **options)
    return target


def derived(source, name, change):
    """A folder beside `source` with the graph that `change(path of the source, path to write)` makes."""
    target = source.parent / name
    target.mkdir()
    shutil.copy(source / "config.json", target)
    change(str(source / "model.onnx"), str(target / "model.onnx"))
    return target


def saved_by_runtime(source, target):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = target
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def fused_attention(source, target):
    from onnxruntime.transformers import optimizer

    optimizer.optimize_model(source, "bert", num_heads=2, hidden_size=WIDTH, opt_level=0).save_model_to_file(target)


def slimmed(source, target):
    import onnxslim

    onnx.save(onnxslim.slim(source), target)


def dynamic(source, target):
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(source, target)


def static(quant_format):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Rows(CalibrationDataReader):
        def __init__(self):
            ids = TOKENS["input_ids"].numpy()
            self.rows = iter([{"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}])

        def get_next(self):
            return next(self.rows, None)

    return lambda source, target: quantize_static(
        source, target, Rows(), quant_format=getattr(QuantFormat, quant_format), per_channel=quant_format == "QDQ",
        op_types_to_quantize=["MatMul", "Add", "Gemm"])


def blocks(**options):
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer, QuantFormat

    if options.pop("qdq", False):
        options["quant_format"] = QuantFormat.QDQ

    def change(source, target):
        quantizer = MatMulNBitsQuantizer(onnx.load(source), block_size=16, **options)
        quantizer.process()
        onnx.save(quantizer.model.model, target)

    return change


def flat(source, target):
    """Scales and zero points in one dimension, as the quantiser of ONNX Runtime 1.20 writes them."""
    blocks(is_symmetric=False)(source, target)
    model = onnx.load(target)
    flat = {name for node in model.graph.node if node.op_type == "MatMulNBits" for name in node.input[2:4]}
    for tensor in model.graph.initializer:
        if tensor.name in flat:
            size = int(np.prod(tensor.dims))
            del tensor.dims[:]
            tensor.dims.append(size)
    onnx.save(model, target)


def bnb4(quant_type):
    from onnxruntime.quantization.matmul_bnb4_quantizer import MatMulBnb4Quantizer

    def change(source, target):
        quantizer = MatMulBnb4Quantizer(onnx.load(source), quant_type=quant_type, block_size=16)
        quantizer.process()
        onnx.save(quantizer.model.model, target)

    return change


def bert():
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, hidden_size=WIDTH,
                        intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    folder = save(randomised(BertModel(config)), "bert")
    base = optimum(folder, "feature-extraction")
    finish(base, folder / "checkpoint")
    for name, change in [("attention", fused_attention), ("saved", saved_by_runtime)]:
        finish(derived(base, name, change), folder / "checkpoint")
    for name, change in [("dynamic", dynamic), ("qoperator", static("QOperator")), ("qdq", static("QDQ"))]:
        finish(derived(base, name, change), folder / "checkpoint", source=base / "linears.json")


def llama_config(**options):
    from transformers import LlamaConfig

    return LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, hidden_size=WIDTH,
                       intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
                       tie_word_embeddings=False, **options)


def llama():
    from transformers import LlamaForCausalLM

    model = randomised(LlamaForCausalLM(llama_config()))
    folder = save(model, "llama")
    base = optimum(folder, "text-generation-with-past")
    finish(base, folder / "checkpoint")
    for name, change in [
        ("nbits4", blocks(is_symmetric=False)),
        ("nbits8", blocks(is_symmetric=True, bits=8)),
        ("nbits-flat", flat),
        ("int4-qdq", blocks(is_symmetric=True, qdq=True)),
        ("nf4", bnb4(1)),
        ("fp4", bnb4(0)),
    ]:
        finish(derived(base, name, change), folder / "checkpoint", source=base / "linears.json")
    import exports

    target = folder / "dynamo-slim"
    exports.dynamo(model, target, ["logits"])
    slimmed(str(target / "model.onnx"), str(target / "model.onnx"))
    shutil.copy(base / "config.json", target)
    finish(target, folder / "checkpoint")


def t5():
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=VOCABULARY, d_model=WIDTH, d_kv=8, d_ff=24, num_layers=1, num_heads=2,
                      feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0,
                      relative_attention_num_buckets=8)
    folder = save(randomised(T5ForConditionalGeneration(config)), "t5")
    target = optimum(folder, "text2text-generation-with-past")
    (target / "decoder_with_past_model.onnx").unlink()
    for name in ("encoder_model.onnx", "decoder_model.onnx", "decoder_model_merged.onnx"):
        finish(target, folder / "checkpoint", name)


def albert():
    from transformers import AlbertConfig, AlbertModel

    config = AlbertConfig(vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, embedding_size=8,
                          hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    folder = save(randomised(AlbertModel(config)), "albert")
    finish(optimum(folder, "feature-extraction"), folder / "checkpoint")


class Block(torch.nn.Module):
    """Names that exporters get wrong: a layer called twice, one called like the second call, containers."""

    def __init__(self):
        super().__init__()
        linear = torch.nn.Linear
        self.fc, self.fc_1 = linear(WIDTH, WIDTH), linear(WIDTH, WIDTH)
        inner = torch.nn.Sequential(linear(WIDTH, 24), torch.nn.Tanh())
        self.seq = torch.nn.Sequential(linear(WIDTH, WIDTH), torch.nn.ReLU(), inner, linear(24, WIDTH))
        self.heads = torch.nn.ModuleDict({"a_b": linear(WIDTH, WIDTH)})
        self.wi_0, self.wi_1 = linear(WIDTH, WIDTH, bias=False), linear(WIDTH, WIDTH, bias=False)

    def forward(self, x):
        x = x + torch.relu(self.fc(x))
        x = x + torch.tanh(self.fc(x))
        x = x + torch.tanh(self.fc_1(x))
        x = x + self.seq(x)
        x = x + torch.tanh(self.heads["a_b"](x))
        return x + self.wi_0(x) * self.wi_1(x)


class Nasty(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = torch.nn.ModuleList([Block()])

    def forward(self, input_ids):
        x = self.embed_tokens(input_ids)
        for block in self.blocks:
            x = block(x)
        return x

    def save_pretrained(self, folder):
        folder.mkdir(parents=True)
        save_file(self.state_dict(), folder / "model.safetensors")


def nasty():
    model = randomised(Nasty())
    folder = save(model, "nasty")
    ids, axes = TOKENS["input_ids"], {0: "batch", 1: "sequence"}
    (folder / "torchscript").mkdir()
    torch.onnx.export(model, (ids,), folder / "torchscript/model.onnx", dynamo=False, opset_version=18,
                      input_names=["input_ids"], output_names=["y"], dynamic_axes={"input_ids": axes})
    finish(folder / "torchscript", folder / "checkpoint")
    program = torch.onnx.export(model, (ids,), dynamo=True, dynamic_shapes=(axes,), input_names=["input_ids"],
                                output_names=["y"], verbose=False)
    for node in program.model.graph.all_nodes():
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
    (folder / "dynamo").mkdir()
    program.save(folder / "dynamo/model.onnx", external_data=False)
    finish(folder / "dynamo", folder / "checkpoint")


def vit():
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(image_size=8, patch_size=4, hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=1,
                       num_attention_heads=2)
    pixels = {"pixel_values": torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))}
    model = randomised(ViTModel(config))
    folder = save(model, "vit", pixels)
    program = torch.onnx.export(model, kwargs=pixels, dynamo=True, verbose=False,
                                output_names=["last_hidden_state", "pooler_output"],
                                dynamic_shapes={"pixel_values": {0: "batch"}})
    for node in program.model.graph.all_nodes():
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
    (folder / "dynamo").mkdir()
    program.save(folder / "dynamo/model.onnx", external_data=False)
    shutil.copy(folder / "checkpoint/config.json", folder / "dynamo")
    finish(folder / "dynamo", folder / "checkpoint")


def whisper():
    from transformers import WhisperConfig, WhisperForAudioClassification

    config = WhisperConfig(vocab_size=VOCABULARY, num_mel_bins=8, max_source_positions=50, d_model=WIDTH, encoder_layers=1,
                           encoder_attention_heads=2, encoder_ffn_dim=24, decoder_layers=1, decoder_attention_heads=2,
                           decoder_ffn_dim=24, classifier_proj_size=12, num_labels=3, pad_token_id=0, bos_token_id=1,
                           eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None)
    features = {"input_features": torch.randn(2, 8, 100, generator=torch.Generator().manual_seed(3))}
    model = randomised(WhisperForAudioClassification(config))
    folder = save(model, "whisper", features)
    program = torch.onnx.export(model, kwargs=features, dynamo=True, verbose=False, output_names=["logits"],
                                dynamic_shapes={"input_features": {0: "batch"}})
    for node in program.model.graph.all_nodes():
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
    (folder / "dynamo").mkdir()
    program.save(folder / "dynamo/model.onnx", external_data=False)
    shutil.copy(folder / "checkpoint/config.json", folder / "dynamo")
    finish(folder / "dynamo", folder / "checkpoint")


def qwen3_moe():
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, hidden_size=WIDTH,
                            intermediate_size=24, moe_intermediate_size=8, num_experts=4, num_experts_per_tok=2,
                            num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
                            decoder_sparse_step=1, tie_word_embeddings=False)
    folder = save(randomised(Qwen3MoeForCausalLM(config)), "qwen3-moe")
    finish(optimum(folder, "text-generation"), folder / "checkpoint")


def genai(name, model_class, config, precisions=("fp32", "int4")):
    """Graphs of the ONNX Runtime GenAI builder."""
    folder = save(randomised(model_class(config)), name)
    tokenizer = EXPORTS.parent / "tiny/gpt2-checkpoint"
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(tokenizer / file, folder / "checkpoint")
    for precision in precisions:
        target = folder / precision
        builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-e", "cpu", "-p", precision]
        builder += ["-m", folder / "checkpoint", "-i", folder / "checkpoint", "-o", target, "-c", folder / "cache"]
        subprocess.run(list(map(str, [*builder, "--extra_options", "int4_block_size=16"])), check=True)
        source = folder / "fp32/linears.json" if precision == "int4" else None
        finish(target, folder / "checkpoint", source=source)
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / "checkpoint" / file).unlink()
    shutil.rmtree(folder / "cache", ignore_errors=True)


def pack():
    """Compresses the graphs, which are mostly names."""
    for path in EXPORTS.rglob("*.onnx"):
        with gzip.GzipFile(f"{path}.gz", "wb", compresslevel=9, mtime=0) as file:
            file.write(path.read_bytes())
        path.unlink()


def main():
    if sys.argv[1:] == ["genai"]:
        from transformers import LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

        genai("genai-llama", LlamaForCausalLM, llama_config(head_dim=16))
        genai("genai-phi3", Phi3ForCausalLM, Phi3Config(
            vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, hidden_size=WIDTH, intermediate_size=24,
            num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, tie_word_embeddings=False,
            original_max_position_embeddings=POSITIONS, pad_token_id=0, bos_token_id=1, eos_token_id=2), ("fp32",))
        return pack()
    for make in (bert, llama, t5, albert, vit, whisper, nasty, qwen3_moe):
        make()
    pack()


if __name__ == "__main__":
    main()
