"""Writes the tiny random models that the tests read: one folder of graphs/tiny for each export.

    python graphs/make_tiny.py

Each export has model.onnx, config.json, tokenizer.json and linears.json, the true list of its linear layers taken
from PyTorch. gpt2-checkpoint and bert-checkpoint hold the weights of those two models. Fails if a graph differs from
PyTorch by more than 1e-5.
"""

import json
import os
import shutil
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import onnx
import torch
from optimum.exporters.onnx.model_patcher import sdpa_mask_without_vmap
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

import exports

TINY = Path(__file__).resolve().parent / "tiny"
END, PAD = "<|endoftext|>", "<|pad|>"
SPECIAL = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
VOCABULARY = 264
POSITIONS = 128
TRACED = "pkg.torch.onnx.fx_node"
TOLERANCE = 1e-5


def byte_tokenizer():
    """One token for each byte, and two special tokens."""
    tokens = [END, PAD, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        padding_side="right",
        model_max_length=POSITIONS,
        model_input_names=["input_ids", "attention_mask"],
    )


def gpt2():
    return randomised(
        GPT2LMHeadModel,
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=POSITIONS,
            n_embd=32,
            n_layer=2,
            n_head=4,
            **SPECIAL,
        ),
    )


def bert():
    return randomised(
        BertForSequenceClassification,
        BertConfig(
            vocab_size=VOCABULARY,
            max_position_embeddings=POSITIONS,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_labels=3,
            pad_token_id=1,
        ),
    )


class LlamaLogits(LlamaForCausalLM):
    """For the TorchScript exporter, which would make graph inputs of the other arguments."""

    def forward(self, input_ids, attention_mask):
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)


def llama(model_class=LlamaForCausalLM, layers=2):
    return randomised(
        model_class,
        LlamaConfig(
            architectures=["LlamaForCausalLM"],
            vocab_size=VOCABULARY,
            max_position_embeddings=POSITIONS,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=False,
            **SPECIAL,
        ),
    )


def randomised(model_class, config):
    """A model whose norms and biases differ from each other: exporters merge equal tensors and lose their names."""
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def torchscript(model, folder, outputs):
    """Writes FOLDER/model.onnx with the TorchScript exporter, constants folded.

    The mask function of transformers uses vmap, which cannot be traced; Optimum's does not.
    """
    ALL_MASK_ATTENTION_FUNCTIONS.register("sdpa", sdpa_mask_without_vmap)
    inputs = exports.example_inputs()
    folder.mkdir(parents=True)
    torch.onnx.export(
        model,
        tuple(inputs.values()),
        folder / "model.onnx",
        dynamo=False,
        do_constant_folding=True,
        opset_version=18,
        input_names=list(inputs),
        output_names=outputs,
        dynamic_axes={name: exports.DYNAMIC for name in (*inputs, *outputs)},
    )


def without_calls(path):
    """Drops the text of traced calls that read no parameter, a sixth of the file: nothing but their names is in it."""
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key != TRACED or "%p_" in entry.value]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    onnx.save(model, path)


def finish(model, tokenizer, folder):
    """Adds what belongs beside the graph and compares it with PyTorch."""
    model.config.save_pretrained(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    linears = json.dumps(exports.linears(model), indent=1)
    (folder / "linears.json").write_text(linears + "\n")
    exports.check(model, folder / "model.onnx", TOLERANCE)


def main():
    shutil.rmtree(TINY, ignore_errors=True)
    tokenizer = byte_tokenizer()
    for name, build, task in (
        ("gpt2", gpt2, "text-generation-with-past"),
        ("bert", bert, "text-classification"),
    ):
        model = build()
        model.save_pretrained(TINY / f"{name}-checkpoint")
        tokenizer.save_pretrained(TINY / f"{name}-checkpoint")
        exports.optimum(TINY / f"{name}-checkpoint", TINY / f"{name}-optimum", task)
        finish(model, tokenizer, TINY / f"{name}-optimum")
        exports.dynamo(model, TINY / f"{name}-dynamo", ["logits"])
        finish(model, tokenizer, TINY / f"{name}-dynamo")
    model = llama(layers=1)
    exports.dynamo(model, TINY / "llama-dynamo-noopt", ["logits"], optimize=False)
    without_calls(TINY / "llama-dynamo-noopt/model.onnx")
    finish(model, tokenizer, TINY / "llama-dynamo-noopt")
    model = llama()
    exports.dynamo(model, TINY / "llama-external", ["logits"], external_data=True)
    finish(model, tokenizer, TINY / "llama-external")
    model = llama(LlamaLogits)
    torchscript(model, TINY / "llama-ts", ["logits"])
    finish(model, tokenizer, TINY / "llama-ts")
    exports.compact(TINY)


if __name__ == "__main__":
    main()
