"""Measures eva-onnx against exact principal components, PEFT's EVA and a plain forward pass.

    python benches/bench.py [--device cpu] [--models DIR] [--exports NAME,...] [--only PART,...] [--skip-peft]

Every program is given the same batches, in the same order. Prints Markdown tables and puts them into benches/results.md
(not with --only or --skip-peft); all figures go to target/bench/bench.json. Exits with status 1 if a bound is missed.
"""

import argparse
import itertools
import json
import os
import platform
import random
import statistics
import sys
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from tokenizers import Tokenizer

import accuracy
import batches
import programs
from programs import BATCH_SIZE, BATCHES, COMPONENTS, RANK, RHO, ROOT, TARGET, TAU, Programs
from results import COLUMNS, Section, row

EXPORTS = ["smollm2/dynamo", "minilm/dynamo"]
NAMES = {"smollm2": "SmolLM2-135M, fp32", "minilm": "MiniLM-L6, fp32"}
PARTS = ["accuracy", "ranks", "time", "batch-sizes"]
MAX_TOKENS = 256
BATCH_SIZES = [1, 4, 16]
# Sees one row a sequence, which PEFT's EVA cannot take.
EXCLUDED = "pooler.dense"
# Bounds on eva-onnx: the worst and mean captured variance, and the median |cosine|.
CAPTURED_MIN, CAPTURED_MEAN, COSINE = 0.999, 0.9998, 0.999


class Case:
    """One exported model, the rows it reads, and what it is compared with."""

    def __init__(self, models, export, out, device, binary, data):
        model = models / export / "model.onnx"
        model_name = NAMES.get(Path(export).parts[0], export)
        self.name = f"{model_name}, {BATCHES} x {BATCH_SIZE} rows of at most {MAX_TOKENS} tokens"
        self.checkpoint = models / Path(export).parent / "checkpoint"
        self.work = out / export
        self.work.mkdir(parents=True, exist_ok=True)
        self.rows = self.work / "rows.jsonl"
        texts = [f"{r['question']}\n{r['answer']}" for r in map(json.loads, open(data))]
        tokenizer = Tokenizer.from_file(str(self.checkpoint / "tokenizer.json"))
        self.ids = batches.tokenise(tokenizer, texts[: BATCH_SIZE * BATCHES], MAX_TOKENS)
        batches.write(self.rows, self.ids)
        self.programs = Programs(binary, model, self.rows, self.work, device, EXCLUDED)

    def reference(self, program, modules, *options):
        """reference.py over the same rows: exact components, or PEFT's EVA."""
        names = self.work / "modules.json"
        names.write_text(json.dumps(modules))
        out = self.work / f"{program}.safetensors"
        arguments = [program, self.checkpoint, self.rows, BATCH_SIZE, names, out, *options]
        return programs.run(sys.executable, ROOT / "benches/reference.py", *arguments) | {"tensors": str(out)}


def accuracy_tables(section, compared):
    """Prints what was compared, and returns whether the bounds hold."""
    groups = compared["groups"]
    text = f"{len(groups)} layer inputs, {compared['rows']} tokens, {COMPONENTS} components"
    section.say(f"{text}, compared with the exact eigenvectors of the covariance of all tokens.\n")
    rows = []
    for program, label in (("ours", "eva-onnx"), ("peft", "PEFT")):
        found = [group[program] for group in groups if program in group]
        if found:
            values = [[entry[key] for entry in found] for key in ("captured", "cosine")]
            rows.append([label] + [f"{f(v):.6f}" for v in values for f in (min, np.mean, np.median)])
    section.table(["", "captured: min", "mean", "median", "\\|cosine\\|: min", "mean", "median"], rows)
    worst, mean, cosine = accuracy.summary(compared, "ours")
    passed = [
        check(section, f"captured >= {CAPTURED_MIN} in every layer input", worst, CAPTURED_MIN),
        check(section, f"mean captured >= {CAPTURED_MEAN}", mean, CAPTURED_MEAN),
        check(section, f"median |cosine| >= {COSINE}", cosine, COSINE),
    ]
    pairs = [group for group in groups if "peft" in group]
    if pairs:
        worse = [group for group in pairs if group["ours"]["captured"] < group["peft"]["captured"]]
        text = f"layer inputs, of {len(pairs)}, with at least PEFT's variance"
        passed.append(check(section, text, len(pairs) - len(worse), len(pairs)))
        early = sum(group["peft"]["rows"] < compared["rows"] for group in pairs)
        section.say(f"- PEFT stopped updating {early} of {len(pairs)} layer inputs before the last batch (tau {TAU})")
    section.say()
    return all(passed)


def check(section, text, value, bound):
    section.say(f"- {'PASS' if value >= bound else 'FAIL'}: {text}: {value:.7g}")
    return bool(value >= bound)


def at_most(section, text, value, bound):
    section.say(f"- {'PASS' if value <= bound else 'FAIL'}: {text} <= {bound}: {value:.3g}")
    return bool(value <= bound)


def comparison(description):
    """The options of benchmarks that compare ways to run one model and kill some of them on the way."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=TARGET / "bench/models")
    parser.add_argument("--export", default=EXPORTS[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--binary", type=Path, default=TARGET / "release/eva-onnx")
    parser.add_argument("--data", type=Path, default=ROOT / "fixtures/calibration.jsonl")
    return parser


def compare_ranks(ours, theirs):
    """The ranks of eva-onnx and of PEFT's redistribution, over the modules that both have."""
    mine = {layer["module"]: layer["rank"] for layer in ours["layers"]}
    modules = [module for module in mine if module in theirs["ranks"]]
    values = np.array([[mine[module], theirs["ranks"][module]] for module in modules])
    return {
        "spearman": float(spearmanr(values).statistic),
        "largest_difference": int(np.abs(values[:, 0] - values[:, 1]).max()),
        "totals": values.sum(0).tolist(),
        "budget": RANK * len(modules),
    }


def time_tables(section, runs, theirs):
    """Where the seconds of the two programs go."""
    columns = ["", "load s", "forward s", "decompose s", "process s", "processor s", "memory MiB"]
    parts = {
        "plain pass": lambda r: [r["load"], r["forward"], None],
        "eva-onnx": lambda r: [r["seconds"]["load"], r["seconds"]["forward_and_sketch"], r["seconds"]["decompose"]],
    }
    rows = []
    for (label, part), of in zip(parts.items(), (runs["plain"], runs["ours"])):
        values = [part(r) + [r["used"]["wall"], r["used"]["processor"], r["peak_mebibytes"]] for r in of]
        rows.append([label] + [spread(column) for column in zip(*values)])
    if theirs:
        used = theirs["used"]
        seconds = ["", f"{theirs['seconds']:.1f}", "", f"{used['wall']:.1f}", f"{used['processor']:.1f}"]
        rows.append(["PEFT's EVA"] + seconds + [f"{theirs['peak_rss_bytes'] / 2**20:.0f}"])
    section.table(columns, rows)
    ratio, least, most = programs.ratios(runs, "processor")
    section.say(f"Medians of {len(runs['plain'])} runs each, alternating; smallest and largest in brackets. Processor "
                f"time, eva-onnx to the plain pass, whole processes: {ratio:.2f} ({least:.2f}-{most:.2f}).\n")


def spread(values):
    return "" if None in values else f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def batch_sizes(case, base, exact):
    """How much the components depend on the batch size and on the order of the rows."""
    shuffled = case.work / "shuffled.jsonl"
    batches.write(shuffled, random.Random(0).sample(case.ids, len(case.ids)))
    found = {}
    for size in BATCH_SIZES:
        report = base if size == BATCH_SIZE else case.programs.components(f"batches-of-{size}", size=size)
        found[f"batches of {size}"] = accuracy.directions(report)
    report = case.programs.components("shuffled", rows=shuffled)
    found[f"shuffled, batches of {BATCH_SIZE}"] = accuracy.directions(report)
    first, truth, table = accuracy.by_group(base), accuracy.truth(exact["tensors"]), []
    captured = {
        name: np.array([truth.captured(first[group], rows) for group, rows in groups.items()])
        for name, groups in found.items()
    }
    for name, groups in found.items():
        cosines = [truth.cosine(first[group], rows) for group, rows in groups.items()]
        table.append([name, "exact", float(np.median(cosines)), float(np.median(captured[name]))])
    for a, b in itertools.combinations(found, 2):
        cosines = [accuracy.median_cosine(found[a][group], found[b][group]) for group in first]
        table.append([a, b, float(np.median(cosines)), float(np.median(captured[a] / captured[b]))])
    return table


def measure(section, case, parts, with_peft):
    """Runs what the parts need and prints their tables.

    Returns all figures, the row for the README, and whether all bounds hold.
    """
    result, passed = {}, True
    runs = case.programs.pairs() if "time" in parts else None
    timed = runs["ours"][0] if runs else case.programs.initialised() if "ranks" in parts else None
    base = case.programs.components() if {"accuracy", "batch-sizes"} & set(parts) else None
    modules = [layer["module"] for layer in (base or timed)["layers"]]
    exact = case.reference("exact", modules) if base else None
    theirs = None
    if with_peft and {"accuracy", "ranks", "time"} & set(parts):
        theirs = case.reference("peft", modules, RANK, RHO, TAU)

    section.say(f"### {case.name}\n")
    compared = {}
    if "accuracy" in parts:
        result["accuracy"] = accuracy.compare(base, exact, theirs)
        passed = accuracy_tables(section, result["accuracy"])
        compared = {p: accuracy.summary(result["accuracy"], p) for p in ("ours", "peft") if p == "ours" or theirs}
    if "ranks" in parts and theirs:
        result["ranks"] = compare_ranks(timed, theirs)
        section.say("Ranks: eva-onnx {} and PEFT {} of a budget of {budget}; Spearman correlation {spearman:.4f}, "
                    "largest difference {largest_difference}.\n".format(*result["ranks"]["totals"], **result["ranks"]))
    line = None
    if "time" in parts:
        time_tables(section, runs, theirs)
        device = f"{os.cpu_count()} cores" if case.programs.device == "cpu" else case.programs.device
        line = row(case.name, device, runs, theirs, compared.get("ours"), compared.get("peft"))
        result["time"] = {name: [r["used"] for r in of] for name, of in runs.items()}
    if "batch-sizes" in parts:
        result["batch_sizes"] = batch_sizes(case, base, exact)
        rows = [[a, b, f"{cosine:.6f}", f"{share:.7f}"] for a, b, cosine, share in result["batch_sizes"]]
        section.table(["eva-onnx", "compared with", "\\|cosine\\|", "captured variance, ratio"], rows)
        section.say("Medians over the layer inputs.\n")
    return result, line, passed


def names(text):
    return text.split(",")


def machine():
    models = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="of eva-onnx and the plain pass; PEFT runs on the CPU")
    parser.add_argument("--models", type=Path, default=TARGET / "bench/models", help="what export_models.py wrote")
    parser.add_argument("--binary", type=Path, default=TARGET / "release/eva-onnx")
    parser.add_argument("--data", type=Path, default=ROOT / "fixtures/calibration.jsonl")
    parser.add_argument("--out", type=Path, default=TARGET / "bench")
    parser.add_argument("--exports", type=names, default=EXPORTS, metavar="NAME,...", help=",".join(EXPORTS))
    parser.add_argument("--only", type=names, default=PARTS, metavar="PART,...", help=",".join(PARTS))
    parser.add_argument("--skip-peft", action="store_true")
    options = parser.parse_args()

    section = Section(options.device.replace(":", "-"), f"make bench, device {options.device}", machine())
    figures, lines, passed = {}, [], True
    for export in options.exports:
        case = Case(options.models, export, options.out, options.device, options.binary, options.data)
        figures[export], line, held = measure(section, case, options.only, not options.skip_peft)
        lines += [line] if line else []
        passed &= held
        (options.out / "bench.json").write_text(json.dumps(figures, indent=1))
    if lines:
        section.say("### In short\n")
        section.table(COLUMNS, lines)
        section.say("Whole processes, loading included; medians, and the ratios of pairs run one after the other. "
                    "PEFT's seconds are those of its initialisation alone, over the same batches once.")
    if options.only == PARTS and not options.skip_peft:
        section.save()
    sys.exit(not passed)


if __name__ == "__main__":
    main()
