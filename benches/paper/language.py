"""SmolLM2-135M on GSM8K: the four starts, the components over batch sizes and orders, and the share of init."""

import itertools
import json

import numpy as np
from tokenizers import Tokenizer

from starts import Task

import accuracy
from train import rows

# Rows of GSM8K's training set: an epoch, of which the share of init is counted.
EPOCH = 7473


def task(options, work):
    """The task, with its rows written. The last rows of the data are held out."""
    quick = options.quick
    length, held_out, count = (96, 8, 152) if quick else (256, 64, 2112)
    folder = options.models / "smollm2"
    tokenizer = Tokenizer.from_file(str(folder / "checkpoint/tokenizer.json"))
    made = rows(tokenizer, options.data, count, length)
    work.mkdir(parents=True, exist_ok=True)
    write(work / "rows.jsonl", made[:-held_out])
    write(work / "held-out.jsonl", made[-held_out:])
    return Task(
        name="language",
        model=folder / options.export / "model.onnx",
        rows=work / "rows.jsonl",
        held_out=work / "held-out.jsonl",
        rank=16,
        rate=5e-4,
        rates=[5e-4, 2e-3, 8e-3] if quick else [2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3],
        steps=12 if quick else 250,
        batch_size=2 if quick else 8,
        init_batches=16 if quick else 32,
        max_length=length,
        training=["--loss", "causal-lm"],
    )


def write(path, made):
    path.write_text("".join(json.dumps(row) + "\n" for row in made))


def components(program, task, sizes, orders, say=print):
    """Components of runs that stop by themselves (tau 0.99), one for each size of batches and order of rows.

    |cosine| is that of components of the same index, as in the paper; `shared` is the mean square of the cosines of the
    principal angles between the spans, which does not change where components of nearly equal variance mix.
    """
    found, runs = {}, []
    for size, order in itertools.product(sizes, range(orders)):
        say(f"{task.name}: components, batches of {size}, order {order}")
        options = ["--ranks", "uniform", "--tau", 0.99]
        report = program.init(task, f"size-{size}-{order}", *options, seed=order, batch_size=size)
        adapter = {"adapter": str(report["folder"] / "adapter_model.safetensors")}
        found[size, order] = accuracy.directions(report | adapter)
        runs.append({
            "size": size,
            "order": order,
            "batches": report["batches"],
            "converged": report["converged"],
            "settled": float(np.mean([layer["converged"] for layer in report["layers"]])),
            "seconds": report["used"]["wall"],
        })
    names = [[size, order] for size, order in found]
    pairs = [[compare(a, b) for b in found.values()] for a in found.values()]
    return {"names": names, "cosine": [[pair[0] for pair in row] for row in pairs],
            "shared": [[pair[1] for pair in row] for row in pairs], "runs": runs, "rank": task.rank,
            "rows": sum(1 for _ in open(task.rows)), "max_length": task.max_length}


def compare(a, b):
    """Mean |cosine| of components of the same index, and mean squared cosine of the principal angles, of all layers."""
    cosines, shared = [], []
    for group, rows_a in a.items():
        first, second = (unit(rows) for rows in (rows_a, b[group]))
        cosines.append(np.abs(np.sum(first * second, axis=1)).mean())
        bases = [np.linalg.qr(rows.T)[0] for rows in (first, second)]
        shared.append(np.mean(np.linalg.svd(bases[0].T @ bases[1], compute_uv=False) ** 2))
    return float(np.mean(cosines)), float(np.mean(shared))


def unit(rows):
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def share_of_init(studied, compared):
    """The share of init in a training of one epoch, by the size of init's batches.

    The seconds of the epoch are those of the measured steps times their number: an extrapolation.
    """
    runs = [run for method in studied["methods"].values() for run in method["runs"]]
    step = float(np.median([run["seconds_a_step"] for run in runs]))
    steps = -(-EPOCH // studied["batch_size"])
    lines = []
    for size in sorted({run["size"] for run in compared["runs"]}):
        of_size = [run for run in compared["runs"] if run["size"] == size]
        shares = [run["seconds"] / (run["seconds"] + step * steps) for run in of_size]
        lines.append({
            "size": size,
            "batches": [run["batches"] for run in of_size],
            "converged": all(run["converged"] for run in of_size),
            "seconds": [run["seconds"] for run in of_size],
            "shares": shares,
        })
    return {"seconds_a_step": step, "steps": steps, "rows": lines}
