"""Measures eva-onnx against exact principal components, PEFT's EVA and a plain forward pass.

    python benches/bench.py [--models DIR] [--binary FILE] [--exports NAME,...] [--only PART,...] [--skip-peft]

Every program is given the same batches, in the same order. Prints Markdown tables, and writes all figures to
target/bench/bench.json. Exits with status 1 if a bound is missed.
"""

import argparse
import itertools
import json
import os
import platform
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from safetensors import safe_open
from scipy.stats import spearmanr
from tokenizers import Tokenizer

import batches

ROOT = Path(__file__).resolve().parents[1]
EXPORTS = ["smollm2/dynamo", "smollm2/optimum", "minilm/dynamo", "minilm/optimum"]
PARTS = ["accuracy", "ranks", "time", "batch-sizes"]

MAX_TOKENS = 256
BATCH_SIZE = 4
BATCHES = 24
RANK, RHO, TAU = 16, 2, 0.99
COMPONENTS = RANK * RHO
BATCH_SIZES = [1, 4, 16]
# Sees one row a sequence, which PEFT's EVA cannot take.
EXCLUDED = "pooler.dense"
REPEATS = 3

CAPTURED_MIN, CAPTURED_MEAN, COSINE = 0.999, 0.9998, 0.999


class Bench:
    """One exported model and the programs that are run on it."""

    def __init__(self, options, export):
        self.export = export
        self.binary = options.binary
        self.model = options.models / export / "model.onnx"
        self.checkpoint = options.models / Path(export).parent / "checkpoint"
        self.work = options.out / export
        self.work.mkdir(parents=True, exist_ok=True)
        self.rows = self.work / "rows.jsonl"
        texts = [f"{row['question']}\n{row['answer']}" for row in map(json.loads, open(options.data))]
        tokenizer = Tokenizer.from_file(str(self.model.with_name("tokenizer.json")))
        self.ids = batches.tokenise(tokenizer, texts[: BATCH_SIZE * BATCHES], MAX_TOKENS)
        batches.write(self.rows, self.ids)

    def ours(self, name, *options, rows=None, size=BATCH_SIZE):
        """Runs `eva-onnx init` over all rows; returns eva.json with the seconds seen from outside."""
        folder = self.work / name
        arguments = [self.binary, "init", self.model, "--data", rows or self.rows, "--out", folder, "--force"]
        arguments += ["--keep-order", "--batch-size", size, "--tau", 1, "--exclude-modules", EXCLUDED]
        arguments += ["--device", "cpu", "--json", "--no-progress"]
        report, used = run(*arguments, *options)
        return report | {"adapter": str(folder / "adapter_model.safetensors"), "used": used}

    def components(self, name, **options):
        """The first COMPONENTS principal components of every module: equal ranks switch off the redistribution."""
        return self.ours(name, "--ranks", "uniform", "--rank", COMPONENTS, **options)

    def reference(self, program, modules, *options):
        names = self.work / "modules.json"
        names.write_text(json.dumps(modules))
        out = self.work / f"{program}.safetensors"
        script = ROOT / "benches/reference.py"
        arguments = [script, program, self.checkpoint, self.rows, BATCH_SIZE, names, out, *options]
        report, used = run(sys.executable, *arguments)
        return report | {"tensors": str(out), "used": used}

    def plain(self):
        program = self.binary.parent / "examples/plain_forward"
        report, used = run(program, self.model, self.rows, "--batch-size", BATCH_SIZE, "--device", "cpu")
        return report | {"used": used}


def run(*arguments):
    """The JSON that a program prints, and the wall and processor seconds that it took."""
    before = os.times()
    started = time.perf_counter()
    done = subprocess.run(list(map(str, arguments)), stdout=subprocess.PIPE, check=True)
    wall = time.perf_counter() - started
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return json.loads(done.stdout), {"wall": wall, "processor": processor}


class ByModule:
    """Tensors that several modules share, as reference.py saves them."""

    def __init__(self, path):
        self.file = safe_open(path, "numpy")
        self.owners = json.loads(self.file.metadata()["owners"])

    def get(self, module):
        return self.file.get_tensor(self.owners[module])


class Truth(ByModule):
    """The exact principal components of every module's input."""

    def __init__(self, path):
        super().__init__(path)
        self.cache = {}

    def components(self, module):
        """The covariance, its leading variances, and the directions as rows."""
        owner = self.owners[module]
        if owner not in self.cache:
            covariance = self.get(module)
            values, vectors = np.linalg.eigh(covariance)
            self.cache[owner] = covariance, values[::-1][:COMPONENTS], vectors.T[::-1][:COMPONENTS]
        return self.cache[owner]

    def captured(self, module, directions):
        """The variance in the span of the directions, as a share of the most that as many can capture."""
        covariance, values, _ = self.components(module)
        basis, _ = np.linalg.qr(directions.T.astype(np.float64))
        return np.sum(basis * (covariance @ basis)) / np.sum(values[: basis.shape[1]])

    def cosine(self, module, directions):
        return median_cosine(directions, self.components(module)[2])


def median_cosine(a, b):
    """The median |cosine| of the rows of A and B of the same index."""
    a, b = (rows.astype(np.float64) / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (a, b))
    return np.median(np.abs(np.sum(a * b, axis=1)))


def by_group(report):
    """The first module of every group of modules that read the same tensor."""
    first = {}
    for layer in report["layers"]:
        first.setdefault(layer["group"], layer["module"])
    return first


def directions(report):
    """The rows of every group's A."""
    with safe_open(report["adapter"], "numpy") as file:
        return {
            group: file.get_tensor(f"base_model.model.{module}.lora_A.weight")
            for group, module in by_group(report).items()
        }


def accuracy(ours, exact, theirs):
    """Captured variance and |cosine| of every group."""
    first = by_group(ours)
    rows = []
    components = directions(ours)
    truth = Truth(exact["tensors"])
    for group, module in first.items():
        row = {"group": group, "module": module, "ours": measure(truth, module, components[group])}
        if theirs:
            row["peft"] = measure(truth, module, ByModule(theirs["tensors"]).get(module))
            row["peft"]["rows"] = theirs["rows"][module]
        rows.append(row)
    return {"rows": exact["rows"], "groups": rows}


def measure(truth, module, found):
    return {"captured": float(truth.captured(module, found)), "cosine": float(truth.cosine(module, found))}


def accuracy_table(result):
    groups = result["groups"]
    print(f"{len(groups)} groups, {result['rows']} tokens, {COMPONENTS} components\n")
    print("| | captured: min | mean | median | \\|cosine\\|: min | mean | median |")
    print("|---|---|---|---|---|---|---|")
    for program, label in (("ours", "eva-onnx"), ("peft", "PEFT")):
        found = [row[program] for row in groups if program in row]
        if found:
            values = [[entry[key] for entry in found] for key in ("captured", "cosine")]
            cells = [f"{f(v):.6f}" for v in values for f in (min, np.mean, np.median)]
            print(f"| {label} | {' | '.join(cells)} |")
    print()
    captured = [row["ours"]["captured"] for row in groups]
    checks = [
        check(f"captured >= {CAPTURED_MIN} in every group", min(captured), CAPTURED_MIN),
        check(f"mean captured >= {CAPTURED_MEAN}", np.mean(captured), CAPTURED_MEAN),
        check(f"median |cosine| >= {COSINE}", np.median([row["ours"]["cosine"] for row in groups]), COSINE),
    ]
    pairs = [row for row in groups if "peft" in row]
    if pairs:
        worse = [row for row in pairs if row["ours"]["captured"] < row["peft"]["captured"]]
        text = f"groups, of {len(pairs)}, with at least PEFT's variance"
        checks.append(check(text, len(pairs) - len(worse), len(pairs)))
        for row in worse:
            print(f"  - {row['module']}: {row['ours']['captured']:.7f}, PEFT {row['peft']['captured']:.7f}")
        early = sum(row["peft"]["rows"] < result["rows"] for row in pairs)
        print(f"- PEFT stopped updating {early} of {len(pairs)} groups before the last batch")
    print()
    return all(checks)


def check(text, value, bound):
    print(f"- {'PASS' if value >= bound else 'FAIL'}: {text}: {value:.7g}")
    return bool(value >= bound)


def ranks(ours, theirs):
    """The ranks of eva-onnx and of PEFT's redistribution, over the modules that both have."""
    pairs = {layer["module"]: layer["rank"] for layer in ours["layers"]}
    modules = [module for module in pairs if module in theirs["ranks"]]
    values = np.array([[pairs[module], theirs["ranks"][module]] for module in modules])
    return {
        "modules": {module: pair.tolist() for module, pair in zip(modules, values)},
        "spearman": float(spearmanr(values).statistic),
        "largest_difference": int(np.abs(values[:, 0] - values[:, 1]).max()),
        "totals": values.sum(0).tolist(),
        "budget": RANK * len(modules),
    }


def ranks_table(result):
    print("| | eva-onnx | PEFT |\n|---|---|---|")
    print("| total rank | {} | {} |".format(*result["totals"]))
    print(f"\nBudget {result['budget']}, Spearman correlation {result['spearman']:.4f}, "
          f"largest difference {result['largest_difference']}.\n")


def timing(bench):
    """Plain and our runs in turn, so that a slow spell of the machine meets both."""
    runs = {"plain": [], "ours": []}
    for _ in range(REPEATS):
        runs["plain"].append(bench.plain())
        runs["ours"].append(bench.ours("timed", "--rank", RANK, "--rho", RHO))
    return runs


def timing_table(runs, theirs):
    plain, ours = (
        {
            "wall": [run["used"]["wall"] for run in runs[program]],
            "processor": [run["used"]["processor"] for run in runs[program]],
            "load": [pick(run)["load"] for run in runs[program]],
            "rss": [run["peak_rss_bytes"] / 2**20 for run in runs[program]],
        }
        for program, pick in (("plain", lambda run: run), ("ours", lambda run: run["seconds"]))
    )
    plain["forward"] = [run["forward"] for run in runs["plain"]]
    ours["forward"] = [run["seconds"]["forward_and_sketch"] for run in runs["ours"]]
    ours["decompose"] = [run["seconds"]["decompose"] for run in runs["ours"]]

    print("| | load s | forward s | decompose s | process s | processor s | peak RSS MiB |")
    print("|---|---|---|---|---|---|---|")
    columns = ("load", "forward", "decompose", "wall", "processor", "rss")
    for label, program in (("ONNX Runtime", plain), ("eva-onnx", ours)):
        print(f"| {label} | {' | '.join(spread(program[key]) if key in program else '' for key in columns)} |")
    if theirs:
        seconds, used = theirs["seconds"], theirs["used"]["processor"]
        print(f"| PEFT | | {seconds:.1f} | | {theirs['used']['wall']:.1f} | {used:.1f} "
              f"| {theirs['peak_rss_bytes'] / 2**20:.0f} |")
    print(f"\nMedians of {len(runs['plain'])} runs, smallest and largest in brackets.\n")
    ours_wall, ours_processor = np.median(ours["wall"]), np.median(ours["processor"])
    ratios = {
        "ours_to_plain": ours_wall / np.median(plain["forward"]),
        "ours_to_plain_processor": ours_processor / np.median(plain["processor"]),
    }
    print(f"- eva-onnx, whole process / ONNX Runtime, forward only: {ratios['ours_to_plain']:.2f}")
    print(f"- the same in processor seconds, both whole processes: {ratios['ours_to_plain_processor']:.2f}")
    if theirs:
        ratios["peft_to_ours"] = theirs["seconds"] / ours_wall
        ratios["peft_to_ours_processor"] = theirs["used"]["processor"] / ours_processor
        print(f"- PEFT, initialisation only / eva-onnx, whole process: {ratios['peft_to_ours']:.2f}")
        print(f"- the same in processor seconds, both whole processes: {ratios['peft_to_ours_processor']:.2f}")
    print()
    return ratios


def spread(values):
    return f"{np.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def batch_sizes(bench, base, exact):
    """How much the components depend on the batch size and on the order of the rows."""
    shuffled = bench.work / "shuffled.jsonl"
    batches.write(shuffled, random.Random(0).sample(bench.ids, len(bench.ids)))
    found = {}
    for size in BATCH_SIZES:
        report = base if size == BATCH_SIZE else bench.components(f"batches-of-{size}", size=size)
        found[f"batches of {size}"] = directions(report)
    found[f"shuffled, batches of {BATCH_SIZE}"] = directions(bench.components("shuffled", rows=shuffled))
    first = by_group(base)
    table = []
    truth = Truth(exact["tensors"])
    captured = {
        name: np.array([truth.captured(first[group], rows) for group, rows in groups.items()])
        for name, groups in found.items()
    }
    for name, groups in found.items():
        cosines = [truth.cosine(first[group], rows) for group, rows in groups.items()]
        table.append([name, "exact", float(np.median(cosines)), float(np.median(captured[name]))])
    for a, b in itertools.combinations(found, 2):
        cosines = [median_cosine(found[a][group], found[b][group]) for group in first]
        table.append([a, b, float(np.median(cosines)), float(np.median(captured[a] / captured[b]))])
    return table


def batch_sizes_table(table):
    print("| eva-onnx | compared with | \\|cosine\\| | captured variance, ratio |\n|---|---|---|---|")
    for a, b, cosine, captured in table:
        print(f"| {a} | {b} | {cosine:.6f} | {captured:.7f} |")
    print("\nMedians over the groups.\n")


def measure_export(bench, parts, with_peft):
    """Runs what the parts need, prints their tables, and returns the figures and whether all bounds hold."""
    result, passed = {}, True
    runs = timing(bench) if "time" in parts or "ranks" in parts else None
    base = bench.components("components") if {"accuracy", "batch-sizes"} & set(parts) else None
    modules = [layer["module"] for layer in (base or runs["ours"][0])["layers"]]
    exact = bench.reference("exact", modules) if base else None
    theirs = None
    if with_peft and {"accuracy", "ranks", "time"} & set(parts):
        theirs = bench.reference("peft", modules, RANK, RHO, TAU)

    if "accuracy" in parts:
        print("### Accuracy\n")
        result["accuracy"] = accuracy(base, exact, theirs)
        passed = accuracy_table(result["accuracy"])
    if "ranks" in parts and theirs:
        print("### Ranks\n")
        result["ranks"] = ranks(runs["ours"][0], theirs)
        ranks_table(result["ranks"])
    if "time" in parts:
        print("### Time\n")
        summary = timing_table(runs, theirs)
        keep = ("seconds", "load", "forward", "peak_rss_bytes", "used")
        timed = {name: [{k: run[k] for k in keep if k in run} for run in of] for name, of in runs.items()}
        result["time"] = timed | {"ratios": summary, "peft": theirs and {k: theirs[k] for k in keep if k in theirs}}
    if "batch-sizes" in parts:
        print("### Batch sizes and order\n")
        result["batch_sizes"] = batch_sizes(bench, base, exact)
        batch_sizes_table(result["batch_sizes"])
    return result, passed


def names(text):
    return text.split(",")


def machine():
    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return {"processor": names[0] if names else platform.machine(), "cores": os.cpu_count()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--models", type=Path, default=target / "bench/models", help="what export_models.py wrote")
    parser.add_argument("--binary", type=Path, default=target / "release/eva-onnx")
    parser.add_argument("--data", type=Path, default=ROOT / "fixtures/calibration.jsonl")
    parser.add_argument("--out", type=Path, default=target / "bench")
    parser.add_argument("--exports", type=names, default=EXPORTS, metavar="NAME,...", help=",".join(EXPORTS))
    parser.add_argument("--only", type=names, default=PARTS, metavar="PART,...", help=",".join(PARTS))
    parser.add_argument("--skip-peft", action="store_true")
    options = parser.parse_args()

    figures, passed = {"machine": machine(), "exports": {}}, True
    print("{processor}, {cores} cores\n".format(**figures["machine"]))
    for export in options.exports:
        print(f"## {export}\n", flush=True)
        bench = Bench(options, export)
        figures["exports"][export], held = measure_export(bench, options.only, not options.skip_peft)
        passed &= held
        (options.out / "bench.json").write_text(json.dumps(figures, indent=1))
    sys.exit(not passed)


if __name__ == "__main__":
    main()
