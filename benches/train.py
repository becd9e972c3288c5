"""Measures `eva-onnx train` against PEFT in PyTorch, on the same batches from the same adapter.

    python benches/train.py [--device cpu] [--models DIR] [--export NAME] [--shapes BxL,...] [--steps N] [--peft-dtype T]
    python benches/train.py --loss-table [--device cpu] [--batch-size N] [--test-rows N] [--data FILE]

Rows are GSM8K's questions and answers, and only answers are predicted; several are joined where a row is longer than one.
Prints Markdown tables and puts them into benches/results.md (not with --no-save); all figures go to
target/bench/train.json. Exits with status 1 if a goal is missed.

With --loss-table, it compares starts instead: the loss on rows that are not trained on after 10, 50 and 100 steps, from
LoRA's own initialisation and from EVA's, at two rates. On two cores that takes less than 20 minutes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from tokenizers import Tokenizer

import bench
import bench_cuda
import loss_table
import programs
from programs import ROOT, TARGET
from results import Section

SHAPES = {"cpu": [(2, 96), (2, 512)], "cuda": [(8, 256), (8, 1024)]}
BATCH_SIZE = {"cpu": 4, "cuda": 16}
# Steps that are not counted: memory is not yet in place.
SETTLED = 2
RATE, RANK = 1e-3, 8
# Goals: seconds of a step and peak memory, of PEFT's. Memory counts with activations computed again.
GOALS = {"cpu": {"seconds": 0.6, "memory": 1.2}, "cuda": {"seconds": 0.9, "memory": 1.2}}


def rows(tokenizer, data, count, length):
    """COUNT rows of LENGTH tokens: questions and answers one after the other, with labels of -100 on the questions."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids, labels, made = [], [], []
    while len(made) < count:
        for row in map(json.loads, open(data)):
            question = tokenizer.encode(row["question"] + "\n").ids
            if not ids and len(question) > length // 2:
                continue
            answer = tokenizer.encode(row["answer"]).ids
            ids += question + answer
            labels += [-100] * len(question) + answer
            if len(ids) >= length:
                made.append({"input_ids": ids[:length], "labels": labels[:length]})
                ids, labels = [], []
            if len(made) == count:
                break
    return made


class Case:
    """One shape of batches: its rows, and the adapter that both programs start from."""

    def __init__(self, options, size, length):
        self.options, self.size, self.length = options, size, length
        self.model = options.models / options.export / "model.onnx"
        self.checkpoint = options.models / Path(options.export).parent / "checkpoint"
        self.work = options.out / f"train-{size}x{length}"
        self.work.mkdir(parents=True, exist_ok=True)
        self.data, self.adapter = self.work / "rows.jsonl", self.work / "adapter"
        made = rows(Tokenizer.from_file(str(self.checkpoint / "tokenizer.json")), options.data, size * options.steps, length)
        self.data.write_text("".join(json.dumps(row) + "\n" for row in made))
        common = ["--data", self.data, "--out", self.adapter, "--force", "--max-batches", 2, "--batch-size", 2]
        arguments = ["init", self.model, *common, "--rank", RANK, "--ranks", "uniform", "--device", options.device]
        subprocess.run([options.binary, *map(str, arguments), "--quiet"], check=True)

    def ours(self, recompute):
        """train.json, with the peak memory in MiB."""
        out = self.work / f"recompute-{recompute}"
        arguments = ["train", self.model, "--data", self.data, "--adapter", self.adapter, "--out", out, "--force"]
        arguments += ["--keep-order", "--batch-size", self.size, "--max-length", self.length, "--steps", self.options.steps]
        arguments += ["--schedule", "constant", "--lr", RATE, "--recompute", recompute, "--device", self.options.device]
        return self.watched(self.options.binary, *arguments, "--json", "--no-progress")

    def peft(self):
        arguments = [self.checkpoint, self.adapter, self.data, self.size, self.options.steps, RATE]
        script = ROOT / "benches/peft_train.py"
        return self.watched(sys.executable, script, *arguments, self.options.device, self.options.peft_dtype)

    def watched(self, *arguments):
        if self.options.device.startswith("cuda"):
            with programs.GpuPeak() as peak:
                result = programs.run(*arguments)
            return result | {"peak_mebibytes": peak.mebibytes}
        result = programs.run(*arguments)
        return result | {"peak_mebibytes": result["peak_rss_bytes"] / 2**20}


def seconds(run):
    return statistics.median(step["seconds"] for step in run["steps"][SETTLED:])


def measure(section, case):
    """Runs all three and prints them; returns the figures and whether the goals are met."""
    runs = {"activations kept": case.ours("off"), "computed again": case.ours("on"), "PEFT, eager": case.peft()}
    peft = runs["PEFT, eager"]
    section.say(f"### {case.options.export}, {case.size} x {case.length} tokens, {case.options.steps} steps\n")
    columns = ["", "s a step", "of PEFT's", "peak memory GiB", "of PEFT's", "ready after s", "loss: first, last step"]
    lines = []
    for name, run in runs.items():
        losses = [step["loss"] for step in run["steps"]]
        cells = [seconds(run), seconds(run) / seconds(peft), run["peak_mebibytes"] / 1024]
        cells += [run["peak_mebibytes"] / peft["peak_mebibytes"], run["seconds_until_first_step"]]
        lines.append([name] + [f"{cell:.2f}" for cell in cells] + [f"{losses[0]:.5f}, {losses[-1]:.5f}"])
    section.table(columns, lines)
    kept, again = runs["activations kept"], runs["computed again"]
    apart = max(abs(a["loss"] - b["loss"]) for a, b in zip(kept["steps"], peft["steps"]))
    section.say(f"Largest difference of a step's loss from PEFT's: {apart:.1e}; computed again from kept: "
                f"{max(abs(a['loss'] - b['loss']) for a, b in zip(kept['steps'], again['steps'])):.1e}.\n")
    goals = GOALS["cuda" if case.options.device.startswith("cuda") else "cpu"]
    held = [
        goal(section, "s a step, kept, of PEFT's", seconds(kept) / seconds(peft), goals["seconds"]),
        goal(section, "memory, computed again, of PEFT's", again["peak_mebibytes"] / peft["peak_mebibytes"], goals["memory"]),
    ]
    section.say()
    return runs, all(held)


def goal(section, text, value, bound):
    section.say(f"- {'PASS' if value <= bound else 'FAIL'}: {text} <= {bound}: {value:.3f}")
    return value <= bound


def shapes(text):
    return [tuple(map(int, shape.split("x"))) for shape in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="of both programs")
    parser.add_argument("--models", type=Path, default=TARGET / "bench/models", help="what export_models.py wrote")
    parser.add_argument("--export", default="smollm2/dynamo")
    parser.add_argument("--binary", type=Path, default=TARGET / "release/eva-onnx")
    parser.add_argument("--data", type=Path, default=ROOT / "fixtures/calibration.jsonl")
    parser.add_argument("--out", type=Path, default=TARGET / "bench")
    parser.add_argument("--shapes", type=shapes, metavar="BxL,...")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--peft-dtype", default="float32", help="of the model in PyTorch")
    parser.add_argument("--loss-table", action="store_true", help="compare starts instead")
    parser.add_argument("--batch-size", type=int, help="rows a step of that table (4, on GPUs 16)")
    parser.add_argument("--test-rows", type=int, help="its rows that are not trained on (32, on GPUs 256)")
    parser.add_argument("--table-steps", type=int, default=loss_table.STEPS[-1], help="its steps")
    parser.add_argument("--no-save", action="store_true")
    options = parser.parse_args()

    kind = options.device.split(":")[0]
    machine = bench.machine() if kind == "cpu" else f"{bench_cuda.gpus()[0]}, {os.cpu_count()} cores"
    name = f"train {options.device.replace(':', '-')} {options.export}"
    if options.loss_table:
        options.batch_size = options.batch_size or BATCH_SIZE[kind]
        section = Section(f"{name} losses", f"make bench-train, --loss-table, device {options.device}", machine)
        loss_table.measure(section, options, kind)
        if not options.no_save:
            section.save()
        return
    section = Section(name, f"make bench-train, device {options.device}", machine)
    figures, passed = {}, True
    for size, length in options.shapes or SHAPES[kind]:
        figures[f"{size}x{length}"], held = measure(section, Case(options, size, length))
        passed &= held
        (options.out / "train.json").write_text(json.dumps(figures, indent=1))
    section.say(f"Whole processes; seconds are medians without the first {SETTLED} steps. `Ready` is from the start of the "
                "process of eva-onnx, checks of the gradient included, and in PyTorch from the start of Python.")
    if not options.no_save:
        section.save()
    sys.exit(not passed)


if __name__ == "__main__":
    main()
