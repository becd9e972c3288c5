"""Measures eva-onnx on a GPU against a plain forward pass and against PEFT's EVA, in one run.

    python benches/bench_cuda.py [--models DIR] [--only NAME[:TOKENS],...] [--skip-peft] [--peft-limit SECONDS]

Makes its models itself: Llamas with random weights (random_llama.py), unless DIR has them from an earlier run. Other
models in DIR are measured on rows of their own: DIR/NAME/{model.onnx,config.json,*.safetensors,rows.jsonl}.
Prints a Markdown table and writes target/bench/cuda.json.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import random_llama

ROOT = Path(__file__).resolve().parents[1]
RANK, RHO, TAU = 16, 2, 0.99
BATCH_SIZE = 4
BATCHES = 24
# Batches until the directions turn as they do from then on.
SETTLED = 6
REPEATS = 2
# Model and tokens of a row; rows of None are of 60 to 256 tokens.
CASES = [("135m", None), ("1b", 512), ("8b", 512), ("8b", 1024)]


def run(*arguments):
    """The JSON that a program prints, and its seconds from start to end."""
    started = time.perf_counter()
    done = subprocess.run(list(map(str, arguments)), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout), time.perf_counter() - started


class Peak:
    """The largest memory in use on the GPU, as its driver reports it, while this is open."""

    def __enter__(self):
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "100"]
        self.watch = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_):
        self.watch.terminate()
        self.mebibytes = max((int(line) for line in self.watch.communicate()[0].split()), default=0)


def write_rows(path, length, vocabulary):
    draw = random.Random(0)
    rows = []
    for _ in range(BATCH_SIZE * BATCHES):
        tokens = length or draw.randint(60, 256)
        rows.append(json.dumps({"input_ids": [draw.randrange(vocabulary) for _ in range(tokens)]}) + "\n")
    path.write_text("".join(rows))


def measure(options, name, length):
    folder = options.models / name
    if not (folder / "model.onnx").is_file():
        run_quietly(sys.executable, ROOT / "benches/random_llama.py", name, folder)
    rows = folder / "rows.jsonl"
    if not rows.is_file():
        rows = folder / f"rows-{length}.jsonl"
        write_rows(rows, length, json.loads((folder / "config.json").read_text())["vocab_size"])
    model = folder / "model.onnx"
    common = ["--batch-size", BATCH_SIZE, "--max-length", 4096, "--device", "cuda"]

    found = {"plain": [], "ours": [], "total": []}
    peaks = {"plain": 0, "ours": 0}
    forward = [options.binary.parent / "examples/plain_forward", model, rows, *common, "--max-batches", BATCHES]
    for _ in range(REPEATS):
        for program, more in (("plain", []), ("ours", ["--sketch", RANK * RHO])):
            with Peak() as peak:
                report, _ = run(*forward, *more)
            found[program].append(statistics.median(report["batches"][SETTLED:]))
            peaks[program] = max(peaks[program], peak.mebibytes)
        init = [options.binary, "init", model, "--data", rows, "--out", options.out / "adapter", "--force"]
        with Peak() as peak:
            report, seconds = run(*init, *common, "--rank", RANK, "--rho", RHO, "--tau", TAU, "--json", "--no-progress")
        found["total"].append(seconds)
        peaks["ours"] = max(peaks["ours"], peak.mebibytes)
    result = {
        "plain": statistics.median(found["plain"]),
        "ours": statistics.median(found["ours"]),
        "total": statistics.median(found["total"]),
        "runs": found,
        "batches": report["batches"],
        "stopped_by": report["stopped_by"],
        "peak_mebibytes": peaks,
        "peft": None,
    }
    if not options.skip_peft:
        script = ROOT / "benches/peft_eva.py"
        arguments = [folder, rows, BATCH_SIZE, RANK, RHO, TAU, options.peft_limit]
        try:
            result["peft"], _ = run(sys.executable, script, *arguments)
        except subprocess.CalledProcessError as error:
            print(f"PEFT failed on {name}: {error}", file=sys.stderr)
    return result


def run_quietly(*arguments):
    subprocess.run(list(map(str, arguments)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def line(name, length, result):
    peaks, peft = result["peak_mebibytes"], result["peft"]
    cells = [
        f"{name}, {BATCH_SIZE} x {length or '60-256'} tokens",
        f"{result['plain'] * 1e3:.1f}",
        f"{result['ours'] * 1e3:.1f}",
        f"{result['ours'] / result['plain']:.2f}",
        f"{result['total']:.1f} ({result['batches']} batches, {result['stopped_by']})",
        "",
        "",
        f"{peaks['plain']} / {peaks['ours']}",
    ]
    if peft:
        more = "" if peft["converged"] else "> "
        cells[5] = f"{more}{peft['seconds']:.0f} ({peft['forwards']} forwards)"
        cells[6] = f"{more}{peft['seconds'] / result['total']:.1f}"
    return f"| {' | '.join(cells)} |"


def names(text):
    return set(text.split(","))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--models", type=Path, default=target / "bench/random")
    parser.add_argument("--binary", type=Path, default=target / "release/eva-onnx")
    parser.add_argument("--out", type=Path, default=target / "bench")
    parser.add_argument("--only", type=names, metavar="NAME[:TOKENS],...", help="models, by their folder")
    parser.add_argument("--skip-peft", action="store_true")
    parser.add_argument("--peft-limit", type=float, default=300, metavar="SECONDS")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    others = sorted(rows.parent.name for rows in options.models.glob("*/rows.jsonl"))
    cases = [(name, None) for name in others if name not in random_llama.SIZES] + CASES
    if options.only:
        cases = [(name, length) for name, length in cases if options.only & {name, f"{name}:{length}"}]
    gpu = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    print(f"{gpu.stdout.strip()}, {os.cpu_count()} cores, rank {RANK}, rho {RHO}\n")
    print("| model, batch | plain forward, ms | eva-onnx, ms | ratio | eva-onnx in all, s | PEFT, s | PEFT / eva-onnx | GPU MiB, plain / eva-onnx |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    figures = {"gpu": gpu.stdout.strip(), "cores": os.cpu_count(), "cases": []}
    for name, length in cases:
        result = measure(options, name, length)
        print(line(name, length, result), flush=True)
        figures["cases"].append({"model": name, "tokens": length} | result)
        (options.out / "cuda.json").write_text(json.dumps(figures, indent=1))
    print("\nMilliseconds a batch (medians), decompositions included; `in all` is the whole process to its end, loading included.")


if __name__ == "__main__":
    main()
