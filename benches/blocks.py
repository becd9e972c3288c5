"""Measures a model that runs in blocks against the whole model, and kills runs on the way.

    python benches/blocks.py [--models DIR] [--export NAME] [--blocks SIZE,...] [--pairs N] [--kills N]
    python benches/blocks.py --model model.onnx [--device cuda] [--blocks SIZE,...] [--no-whole] [--half]

Needs what `make bench` needs (the models of `make target/bench/models`). Prints Markdown tables and puts them into
benches/results.md. Exits with status 1 if a bound is missed.

With --model, runs that model, with config.json beside it, on random tokens, and prints time, memory, bytes read, and the
least that physics allows beside them. Such a model may be larger than the memory (random_llama.py makes them): --no-whole
leaves out the run of the whole model. With several devices, the layers are divided among them. Nothing is bounded then,
and nothing is kept.
"""

import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

import one_model
from bench import Case, at_most, check, comparison, machine
from programs import TARGET
from results import Section

# What a run in blocks may take of the wall time of the whole model, and by how much an entry of A may differ.
TIME, ALIKE = 1.15, 1e-5


def difference(one, other):
    """The largest difference of an entry of the weights of two runs."""
    one, other = load_file(one["adapter"]), load_file(other["adapter"])
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def measure(section, case, blocks, pairs):
    """Runs of the whole model and in blocks, in turn."""
    runs = {size: [] for size in (None, *blocks)}
    for _ in range(pairs):
        for size, of_size in runs.items():
            options = ["--blocks", size] if size else []
            of_size.append(case.programs.ours(f"blocks-{size}", "--rank", 16, *options))
    whole = runs[None][0]
    ranks = lambda report: [layer["rank"] for layer in report["layers"]]
    rows, passed = [], []
    median = lambda reports, key: statistics.median(key(report) for report in reports)
    wall, peak = (lambda report: report["used"]["wall"]), (lambda report: report["peak_mebibytes"])
    for size, reports in runs.items():
        ratio = median(reports, wall) / median(runs[None], wall)
        largest = difference(whole, reports[0])
        spread = f"{median(reports, wall):.1f} ({min(map(wall, reports)):.1f}-{max(map(wall, reports)):.1f})"
        note = next((note for note in reports[0].get("notes", []) if "blocks" in note), "")
        rows.append([size or "whole", spread, f"{ratio:.2f}", f"{median(reports, peak):.0f}", f"{largest:.1e}", note])
        if size:
            passed.append(at_most(section, f"{size}: wall time, of the whole model's", ratio, TIME))
            passed.append(at_most(section, f"{size}: largest difference of an entry of A", largest, ALIKE))
            same = sum(a == b for a, b in zip(ranks(whole), ranks(reports[0])))
            passed.append(check(section, f"{size}: equal ranks, of {len(ranks(whole))}", same, len(ranks(whole))))
    section.say()
    section.table(["blocks", "wall s", "of whole", "peak MiB", "largest difference", ""], rows)
    return all(passed)


def killed(section, case, size, kills):
    """Kills a run at random times and starts it again; whether it gives the bytes of one that was not killed."""
    programs, states = case.programs, case.work / "states"
    shutil.rmtree(states, ignore_errors=True)
    options = ["--rank", 16, "--blocks", size, "--spill", states]
    expected = programs.ours("not-killed", *options)
    command = [programs.binary, "init", programs.model, "--data", programs.rows, "--out", programs.out / "killed"]
    command += ["--force", "--keep-order", "--batch-size", 4, "--max-length", 4096, "--tau", 1, "--no-progress"]
    command += ["--exclude-modules", programs.exclude, "--device", programs.device, *options, "--resume", "--quiet"]
    rng, done, resumed = random.Random(0), 0, 0
    while True:
        process = subprocess.Popen(list(map(str, command)))
        # The longest part is a block with its weights, so a run gets on between two kills.
        wait = rng.uniform(0, expected["used"]["wall"] / 2) if done < kills else None
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            done += 1
            resumed += (states / "eva-block-1").exists()
            continue
        if process.returncode:
            raise SystemExit(f"exit status {process.returncode}")
        if done < kills:
            shutil.rmtree(programs.out / "killed")
            continue
        break
    same = Path(expected["adapter"]).read_bytes() == (programs.out / "killed/adapter_model.safetensors").read_bytes()
    return check(section, f"the bytes of a run that was not killed, after {done} kills, {resumed} after a block", int(same), 1)


def main():
    parser = comparison(__doc__)
    parser.add_argument("--blocks", default="200MB")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--no-whole", action="store_true")
    parser.add_argument("--half", action="store_true", help="products of the model are of 16 bits")
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    args = parser.parse_args()
    os.environ.setdefault("VIRTUAL_ENV", sys.prefix)
    if args.model:
        section = Section("blocks-of-one", "Blocks", machine())
        one_model.measure(section, args, TARGET / "bench/one-model")
        return
    case = Case(args.models, args.export, TARGET / "bench/blocks", args.device, args.binary, args.data)
    section = Section("blocks", "Blocks", machine())
    section.say(f"### {case.name}\n")
    sizes = args.blocks.split(",")
    passed = measure(section, case, sizes, args.pairs)
    if args.kills:
        passed &= killed(section, case, sizes[0], args.kills)
    section.save()
    raise SystemExit(not passed)


if __name__ == "__main__":
    main()
