"""PEFT's own EVA on a GPU, until it has converged.

    python benches/peft_eva.py FOLDER ROWS BATCH_SIZE RANK RHO TAU LIMIT

FOLDER holds a config.json of a causal language model, and its weights or nothing: then they are random. PEFT cycles
through the rows until every component has converged; after LIMIT seconds it is stopped. Prints JSON.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from peft import EvaConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights

import batches


class Limit(Exception):
    """The time is up."""


class Batches:
    """What PEFT iterates over, again and again."""

    def __init__(self, rows, size):
        self.data = [{k: torch.from_numpy(v) for k, v in batch.items()} for batch in batches.read(rows, size)]

    def __iter__(self):
        return iter(self.data)

    def __len__(self):
        return len(self.data)


def load(folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    if list(Path(folder).glob("*.safetensors")):
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).cuda().eval()
    torch.set_default_dtype(getattr(torch, str(config.dtype).removeprefix("torch.")))
    with torch.device("cuda"):
        return transformers.AutoModelForCausalLM.from_config(config).eval()


def main():
    folder, rows, size, rank, rho, tau, limit = sys.argv[1:]
    data = Batches(rows, int(size))
    eva = EvaConfig(rho=float(rho), tau=float(tau))
    config = LoraConfig(r=int(rank), target_modules="all-linear", init_lora_weights="eva", eva_config=eva)
    model = get_peft_model(load(folder), config, low_cpu_mem_usage=True)
    torch.cuda.synchronize()
    started = time.perf_counter()
    forwards = []

    def forward(model, inputs):
        now = time.perf_counter() - started
        forwards.append(now)
        if now > float(limit):
            raise Limit
        return model(**inputs)

    try:
        initialize_lora_eva_weights(model, data, forward_fn=forward, show_progress_bar=False)
        converged = True
    except Limit:
        converged = False
    torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    # The first forward pass finds shared inputs, by their hashes.
    steps = [b - a for a, b in zip(forwards[1:], forwards[2:])]
    report = {
        "seconds": seconds,
        "converged": converged,
        "forwards": len(forwards),
        "first_forward": forwards[1] - forwards[0] if len(forwards) > 1 else None,
        "later_forward": sum(steps) / len(steps) if steps else None,
        "peak_device_bytes": torch.cuda.max_memory_allocated(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
