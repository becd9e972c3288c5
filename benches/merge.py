"""Measures adapters of merged shards against one run over the same rows, and kills shards on the way.

    python benches/merge.py [--models DIR] [--export NAME] [--shards N,...] [--kills N]

Needs what `make bench` needs (the models of `make target/bench/models`). Prints Markdown tables and puts them into
benches/results.md. Exits with status 1 if a bound is missed.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from scipy.stats import spearmanr

import accuracy
from bench import Case, at_most, check, comparison, machine
from programs import BATCH_SIZE, COMPONENTS, RANK, RHO, TARGET, run
from results import Section

# What the worst layer input of merged shards may capture less than one run.
LOSS = 1e-3
UNIFORM = ["--ranks", "uniform", "--rank", COMPONENTS]
BY_VARIANCE = ["--ranks", "eva", "--rank", RANK, "--rho", RHO]


class Shards:
    """The shards of a case, and what merging them gives."""

    def __init__(self, case, count):
        self.case, self.count = case, count
        self.folder = case.work / f"shards-{count}"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()

    def command(self, index, *options):
        """`init --shard` with the options of the one run."""
        programs = self.case.programs
        command = [programs.binary, "init", programs.model, "--data", programs.rows, "--keep-order"]
        command += ["--batch-size", BATCH_SIZE, "--max-length", 4096, "--device", programs.device, "--no-progress"]
        command += ["--exclude-modules", programs.exclude, "--json", *UNIFORM, *options]
        return list(map(str, [*command, "--shard", f"{index}/{self.count}", "--summary", self.file(index)]))

    def file(self, index):
        return self.folder / f"{index}.safetensors"

    def run(self):
        return [run(*self.command(index)) for index in range(self.count)]

    def merge(self, name, *options, files=None):
        folder = self.folder / name
        files = files or [self.file(index) for index in range(self.count)]
        report = run(self.case.programs.binary, "merge", *files, "--out", folder, "--force", "--json", *options)
        return report | {"adapter": str(folder / "adapter_model.safetensors")}


def same_bytes(shards, first, section):
    """Whether the files in another order give the same adapter."""
    files = [shards.file(index) for index in reversed(range(shards.count))]
    again = shards.merge("again", *UNIFORM, files=files)
    same = Path(first["adapter"]).read_bytes() == Path(again["adapter"]).read_bytes()
    return check(section, f"{shards.count} shards in another order give the same bytes", int(same), 1)


def killed(case, count, kills, section):
    """Kills shards at random times and starts them again; whether their summaries have the bytes of whole runs."""
    shards, expected, seconds = Shards(case, count), [], []
    for index in range(count):
        started = time.perf_counter()
        run(*shards.command(index))
        seconds.append(time.perf_counter() - started)
        expected.append(shards.file(index).read_bytes())
        shards.file(index).unlink()
    rng, done = random.Random(0), 0
    for index in range(count):
        left = kills // count
        while True:
            command = shards.command(index, "--checkpoint-every", "1", "--resume")
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            try:
                process.wait(rng.uniform(0, seconds[index]) if left else None)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                left, done = left - 1, done + 1
                continue
            if process.returncode:
                raise SystemExit(f"shard {index} failed")
            break
    same = [shards.file(index).read_bytes() == expected[index] for index in range(count)]
    text = f"summaries, of {count}, with the bytes of runs that were not killed, after {done} kills"
    return check(section, text, sum(same), count)


def measure(section, case, counts, kills):
    summary = case.work / "one.safetensors"
    summary.unlink(missing_ok=True)
    one = case.programs.ours("one", *UNIFORM, "--summary", summary)
    exact = case.reference("exact", [layer["module"] for layer in one["layers"]])
    truth, first = accuracy.truth(exact["tensors"]), accuracy.by_group(one)
    captured = lambda report: {g: truth.captured(first[g], a) for g, a in accuracy.directions(report).items()}
    ranks = lambda report: [layer["rank"] for layer in report["layers"]]
    whole = captured(one)
    shards = Shards(case, 1)
    by_variance = ranks(shards.merge("ranks", *BY_VARIANCE, files=[summary]))

    section.say(f"### {case.name}\n")
    section.say(f"{len(first)} layer inputs, {exact['rows']} tokens, {COMPONENTS} components; one run takes "
                f"{one['used']['wall']:.0f} s and captures at least {min(whole.values()):.6f} of the best variance.\n")
    rows, passed = [], []
    for count in counts:
        shards = Shards(case, count)
        runs = shards.run()
        merged = shards.merge("components", *UNIFORM)
        found = captured(merged)
        loss = max(whole[group] - found[group] for group in first)
        mine = ranks(shards.merge("ranks", *BY_VARIANCE))
        spearman = spearmanr(mine, by_variance).statistic
        largest = max(abs(a - b) for a, b in zip(mine, by_variance))
        size = sum(shards.file(index).stat().st_size for index in range(count)) / count / 2**20
        rows.append([str(count), f"{min(found.values()):.6f}", f"{loss:.1e}", f"{spearman:.4f}", str(largest),
                     f"{size:.1f}", f"{merged['used']['wall']:.1f}",
                     f"{max(r['used']['wall'] for r in runs):.0f}"])
        passed.append(at_most(section, f"{count} shards, largest loss of captured variance to one run", loss, LOSS))
        passed.append(same_bytes(shards, merged, section))
    if kills:
        passed.append(killed(case, counts[0], kills, section))
    section.say()
    section.table(["shards", "captured: min", "largest loss to one run", "Spearman of ranks", "largest difference",
                   "MiB of a summary", "merge s", "longest shard s"], rows)
    return all(passed)


def main():
    parser = comparison(__doc__)
    parser.add_argument("--shards", default="2,3,7")
    args = parser.parse_args()
    os.environ.setdefault("VIRTUAL_ENV", sys.prefix)
    case = Case(args.models, args.export, TARGET / "bench/merge", args.device, args.binary, args.data)
    section = Section("merge", "Merging", machine())
    passed = measure(section, case, [int(count) for count in args.shards.split(",")], args.kills)
    section.save()
    raise SystemExit(not passed)


if __name__ == "__main__":
    main()
