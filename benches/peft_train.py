"""Trains an adapter with PEFT, step by step.

    python benches/peft_train.py CHECKPOINT ADAPTER ROWS BATCH_SIZE STEPS RATE DEVICE DTYPE

ROWS are `{"input_ids": [...], "labels": [...]}`, all of one length, in batches in file order. Prints JSON.
"""

import time

STARTED = time.perf_counter()

import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from peft import PeftModel

import batches

# As `eva-onnx train` has it.
CLIP = 1.0


def main():
    checkpoint, adapter, data, size, steps, rate, device, dtype = sys.argv[1:]
    size, steps, cuda = int(size), int(steps), device.startswith("cuda")
    base = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=getattr(torch, dtype)).to(device)
    model = PeftModel.from_pretrained(base, adapter, is_trainable=True)
    model.eval()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=float(rate), weight_decay=0)
    rows = [json.loads(line) for line in open(data)]
    ready, records = time.perf_counter() - STARTED, []
    for step in range(steps):
        batch = rows[step * size % len(rows) :][:size]
        named = {name: torch.tensor([row[name] for row in batch], device=device) for name in ("input_ids", "labels")}
        begun = time.perf_counter()
        loss = model(**named).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        value = loss.item()
        if cuda:
            torch.cuda.synchronize()
        records.append({"loss": value, "seconds": time.perf_counter() - begun})
    peak = torch.cuda.max_memory_allocated() if cuda else batches.peak_rss()
    print(json.dumps({"steps": records, "seconds_until_first_step": ready, "peak_rss_bytes": peak}))


if __name__ == "__main__":
    main()
