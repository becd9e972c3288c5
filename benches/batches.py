"""The calibration batches that every program in the benchmark is given."""

import json

import numpy as np


def tokenise(tokenizer, texts, max_tokens):
    """Token ids of every text, cut to MAX_TOKENS and not padded."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def write(path, rows):
    """One `{"input_ids": [...]}` a line, as eva-onnx reads them."""
    path.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))


def read(path, size):
    """Batches of SIZE rows in file order, padded on the right: input_ids and attention_mask."""
    rows = [json.loads(line)["input_ids"] for line in open(path)]
    return [pad(rows[start : start + size]) for start in range(0, len(rows), size)]


def pad(rows):
    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def peak_rss():
    """Largest resident set of this process in bytes (Linux)."""
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")
