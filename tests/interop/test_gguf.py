"""GGUF files for llama.cpp, read by its own package: names of weights, their order, and what they add to the weights."""

import json
import os
import subprocess

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

CONFIGS = {
    "llama": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "mistral": {"num_attention_heads": 4, "num_key_value_heads": 4},
    "smollm3": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {},
    "gemma3_text": {},
    "phi3": {},
    "gpt2": {},
}
ARCHITECTURES = {"mistral": "llama", "gemma3_text": "gemma3"}
REORDERED = ("llama", "mistral", "smollm3")
MODULES = {
    "gpt2": ["transformer.h.{}.attn.c_attn", "transformer.h.{}.attn.c_proj", "transformer.h.{}.mlp.c_fc"],
    "phi3": ["model.layers.{}.self_attn.qkv_proj", "model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp.gate_up_proj"],
}
LLAMA = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
LLAMA += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
RANKS, IN, OUT = (3, 2), 16, 32


def permuted(weight, heads):
    """`LlamaModel.permute` of llama.cpp."""
    halves = weight.reshape(heads, 2, len(weight) // heads // 2, -1)
    return halves.swapaxes(1, 2).reshape(weight.shape)


@pytest.mark.parametrize("model_type", CONFIGS)
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_a_gguf_file(model_type, dtype, tmp_path):
    templates = MODULES.get(model_type, ["model.layers.{}." + module for module in LLAMA])
    modules = [template.format(block) for block in range(2) for template in templates]
    torch.manual_seed(0)
    tensors, ranks = {}, {}
    for index, module in enumerate(modules):
        ranks[module] = RANKS[index % 2]
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(ranks[module], IN)
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(OUT, ranks[module])
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_file(tensors, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANKS[0], "lora_alpha": 6, "rank_pattern": ranks, "target_modules": modules}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, **CONFIGS[model_type]}))
    output = tmp_path / "lora.gguf"
    command = [os.environ["EVA_ONNX"], "convert", adapter, output, "--model", tmp_path, "--dtype", dtype]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)

    file = gguf.GGUFReader(output)
    architecture = ARCHITECTURES.get(model_type, model_type)
    text = lambda key: file.get_field(key).contents()
    assert (text("general.type"), text("general.architecture"), text("adapter.type")) == ("adapter", architecture, "lora")
    alpha = file.get_field("adapter.lora.alpha").contents()
    found = {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in file.tensors}
    assert len(found) == 2 * len(modules)
    kinds = {arch: kind for kind, arch in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[architecture], 2)
    for module in modules:
        name = names.get_name(module) + ".weight"
        a, b = found[f"{name}.lora_a"].astype(float), found[f"{name}.lora_b"].astype(float)
        assert a.shape == (ranks[module], IN) and b.shape == (OUT, ranks[module])
        parts = [tensors[f"base_model.model.{module}.{part}.weight"].double().numpy() for part in ("lora_B", "lora_A")]
        wanted = parts[0] @ parts[1] * (6 / ranks[module])
        heads = CONFIGS[model_type]
        if model_type in REORDERED and module.endswith(("q_proj", "k_proj")):
            key = "num_attention_heads" if module.endswith("q_proj") else "num_key_value_heads"
            wanted = permuted(wanted, heads[key])
        eps = {"f32": 2**-23, "f16": 2**-10, "bf16": 2**-7}[dtype]
        np.testing.assert_allclose(b @ a * (alpha / len(a)), wanted, atol=4 * eps * np.abs(wanted).max())
