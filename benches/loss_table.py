"""The loss on other rows after some steps, from LoRA's own initialisation and from EVA's; for train.py."""

import json
import os
import subprocess
import sys

import programs
from programs import ROOT

# Steps after which the loss is measured; the last is the length of a training.
STEPS = [10, 50, 100]
RATES = [1e-3, 3e-3]
RHOS = [1, 2]
# Alpha is the rank, so that every module has the scale 1 in both.
RANK, ALPHA = 16, 16
# Rows at the end of the data that are not trained on.
TEST_ROWS = {"cpu": 32, "cuda": 256}
# Tokens of a row that are read.
LENGTH = 256


class Table:
    """Trainings of one model that differ in their start and their rate."""

    def __init__(self, options, kind):
        self.options = options
        self.model = options.models / options.export / "model.onnx"
        self.checkpoint = options.models / os.path.dirname(options.export) / "checkpoint"
        self.size = options.batch_size
        self.steps = [step for step in STEPS if step < options.table_steps] + [options.table_steps]
        self.work = options.out / "loss-table"
        self.work.mkdir(parents=True, exist_ok=True)
        lines = options.data.read_text().splitlines(keepends=True)
        tested = options.test_rows or TEST_ROWS[kind]
        if len(lines) <= tested:
            sys.exit(f"{options.data} has {len(lines)} rows, and {tested} are to be kept for the test")
        self.train, self.test = self.work / "train.jsonl", self.work / "test.jsonl"
        self.train.write_text("".join(lines[:-tested]))
        self.test.write_text("".join(lines[-tested:]))

    def common(self):
        data = ["--data", self.train, "--completion-only", "--batch-size", self.size, "--max-length", LENGTH]
        return [*data, "--device", self.options.device, "--force"]

    def lora(self):
        """An adapter with PEFT's own start: A of Kaiming, B of zeros."""
        folder = self.work / "lora"
        script = ROOT / "benches/peft_start.py"
        subprocess.run([sys.executable, str(script), *map(str, [self.checkpoint, folder, RANK, ALPHA])], check=True)
        return folder

    def eva(self, rho):
        folder = self.work / f"eva-{rho}"
        arguments = ["init", self.model, *self.common(), "--out", folder, "--rho", rho]
        arguments += ["--rank", RANK, "--alpha", ALPHA, "--quiet"]
        subprocess.run([self.options.binary, *map(str, arguments)], check=True)
        return folder

    def trained(self, adapter, rate):
        """The loss on the test rows after each of the steps."""
        out = self.work / f"{adapter.name}-{rate}"
        arguments = ["train", self.model, *self.common(), "--adapter", adapter, "--out", out, "--lr", rate]
        arguments += ["--steps", self.steps[-1], "--schedule", "constant", "--eval", self.test]
        arguments += ["--eval-every", min(self.steps[0], self.steps[-1]), "--seed", 1, "--json", "--no-progress"]
        report = programs.run(self.options.binary, *arguments)
        losses = {evaluation["step"]: evaluation["loss"] for evaluation in report["evaluations"]}
        return [losses[step] for step in self.steps]


def measure(section, options, kind):
    """Trains from every start at every rate, and adds a table; returns the losses."""
    table = Table(options, kind)
    starts = {"LoRA as in PEFT": table.lora()} | {f"EVA, rho {rho}": table.eva(rho) for rho in RHOS}
    section.say(f"### {options.export}, loss on {sum(1 for _ in open(table.test))} other rows of GSM8K, completions only\n")
    section.say(f"Rank {RANK}, alpha {ALPHA}, {table.size} rows a step, at most {LENGTH} tokens a row, constant rate.\n")
    losses, lines = {}, []
    for rate in RATES:
        for name, adapter in starts.items():
            losses[f"{name}, {rate}"] = found = table.trained(adapter, rate)
            lines.append([f"{rate:g}", name, *(f"{loss:.3f}" for loss in found)])
    section.table(["rate", "start", *(f"after {step} steps" for step in table.steps)], lines)
    (table.work / "losses.json").write_text(json.dumps(losses, indent=1))
    return losses
