"""Trains the example model on GSM8K and exports it.

    python graphs/train_example.py --data train.jsonl

A Llama-style language model of 0.86 million parameters with its own byte-level BPE tokenizer, trained on
"question\\nanswer" of each row. The last 256 rows are held out: they measure the loss, and become
fixtures/calibration.jsonl. Writes graphs/example/{checkpoint,dynamo,optimum}. Fails if a graph differs from PyTorch
by more than 1e-4.
"""

import argparse
import json
import math
import os
import random
import shutil
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import exports

ROOT = Path(__file__).resolve().parents[1]
HELD_OUT = 256
END, PAD = "<|endoftext|>", "<|pad|>"
VOCABULARY = 768
POSITIONS = 512
BATCH = 8
PEAK_RATE = 3e-3
WARMUP = 100
TOLERANCE = 1e-4


def read_rows(path):
    with path.open() as lines:
        return [json.loads(line) for line in lines]


def text(row):
    return row["question"] + "\n" + row["answer"]


def train_tokenizer(rows):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(map(text, rows), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        padding_side="right",
        model_max_length=POSITIONS,
        model_input_names=["input_ids", "attention_mask"],
    )


def new_model(tokenizer):
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=160,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=5,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=POSITIONS,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def encode(tokenizer, rows):
    return [tokenizer(text(row) + END, truncation=True)["input_ids"] for row in rows]


def batches(tokenizer, sequences):
    """Padded batches of sequences of similar length, in ascending order."""
    ordered = sorted(sequences, key=len)
    result = []
    for start in range(0, len(ordered), BATCH):
        batch = tokenizer.pad({"input_ids": ordered[start : start + BATCH]}, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        result.append(dict(batch, labels=labels))
    return result


def rate(step, steps):
    """Linear warm-up, then a cosine to a twentieth of the peak."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    progress = (step - WARMUP) / (steps - WARMUP)
    return 0.05 + 0.95 * (1 + math.cos(math.pi * progress)) / 2


def train(model, tokenizer, sequences):
    """One pass over the sequences."""
    shuffled = batches(tokenizer, sequences)
    random.Random(0).shuffle(shuffled)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, len(shuffled)))
    model.train()
    for step, batch in enumerate(shuffled, 1):
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}/{len(shuffled)}: loss {loss.item():.3f}", flush=True)


@torch.no_grad()
def mean_loss(model, tokenizer, sequences):
    """Cross-entropy in nats for each predicted token."""
    model.eval()
    total = count = 0
    for batch in batches(tokenizer, sequences):
        tokens = (batch["labels"][:, 1:] != -100).sum().item()
        total += model(**batch).loss.item() * tokens
        count += tokens
    return total / count


def export(model, tokenizer, out):
    shutil.rmtree(out, ignore_errors=True)
    checkpoint = out / "checkpoint"
    model.save_pretrained(checkpoint)
    tokenizer.save_pretrained(checkpoint)
    exports.optimum(checkpoint, out / "optimum", "text-generation-with-past")
    exports.dynamo(model, out / "dynamo", ["logits"])
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(checkpoint / name, out / "dynamo")
    for variant in ("dynamo", "optimum"):
        exports.check(model, out / variant / "model.onnx", TOLERANCE)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="GSM8K train.jsonl")
    rows = read_rows(parser.parse_args().data)
    kept, held_out = rows[:-HELD_OUT], rows[-HELD_OUT:]
    (ROOT / "fixtures" / "calibration.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in held_out)
    )
    torch.manual_seed(0)
    tokenizer = train_tokenizer(kept)
    model = new_model(tokenizer)
    train(model, tokenizer, encode(tokenizer, kept))
    loss = mean_loss(model, tokenizer, encode(tokenizer, held_out))
    print(f"{model.num_parameters():,} parameters, loss on the held-out rows {loss:.3f}")
    export(model, tokenizer, ROOT / "graphs" / "example")
    exports.compact(ROOT / "graphs" / "example")


if __name__ == "__main__":
    main()
