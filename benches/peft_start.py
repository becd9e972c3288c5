"""Writes a LoRA adapter as PEFT starts one: A of Kaiming, B of zeros.

    python benches/peft_start.py CHECKPOINT OUT RANK ALPHA
"""

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from peft import LoraConfig, get_peft_model

checkpoint, out, rank, alpha = sys.argv[1:]
torch.manual_seed(1)
base = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
config = LoraConfig(r=int(rank), lora_alpha=float(alpha), target_modules="all-linear", task_type="CAUSAL_LM")
get_peft_model(base, config).save_pretrained(out)
