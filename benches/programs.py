"""Runs the programs that are compared, and measures them from outside."""

import json
import os
import statistics
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))

BATCH_SIZE = 4
BATCHES = 24
RANK, RHO, TAU = 16, 2, 0.99
COMPONENTS = RANK * RHO
# Pairs of runs, a plain forward pass and eva-onnx. Pairs begin with the one and the other in turn.
PAIRS = 5


def run(*arguments):
    """The JSON that a program prints, with its wall and processor seconds under `used`."""
    before, started = os.times(), time.perf_counter()
    done = subprocess.run(list(map(str, arguments)), stdout=subprocess.PIPE, check=True)
    wall, after = time.perf_counter() - started, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return json.loads(done.stdout) | {"used": {"wall": wall, "processor": processor}}


class GpuPeak:
    """The largest memory in use on any GPU, in MiB as the driver reports it, while this is open."""

    def __enter__(self):
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "100"]
        self.watch = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_):
        self.watch.terminate()
        self.mebibytes = max((int(line) for line in self.watch.communicate()[0].split()), default=0)


class Programs:
    """The plain forward pass and `eva-onnx init` over the same rows of one model."""

    def __init__(self, binary, model, rows, out, device, exclude=None):
        self.binary, self.model, self.rows, self.out = Path(binary), Path(model), Path(rows), Path(out)
        self.device, self.exclude = device, exclude

    def plain(self, *options):
        program = self.binary.parent / "examples/plain_forward"
        first = str(self.device).split(",")[0]
        common = ["--batch-size", BATCH_SIZE, "--max-batches", BATCHES, "--device", first]
        return self.watched(program, self.model, self.rows, *common, *options)

    def ours(self, name, *options, rows=None, size=BATCH_SIZE, tau=1):
        """`eva-onnx init` over all rows in file order: eva.json, and where the adapter is."""
        folder = self.out / name
        arguments = [self.binary, "init", self.model, "--data", rows or self.rows, "--out", folder, "--force"]
        arguments += ["--keep-order", "--batch-size", size, "--max-length", 4096, "--tau", tau]
        arguments += ["--device", self.device, "--json", "--no-progress"]
        if self.exclude:
            arguments += ["--exclude-modules", self.exclude]
        return self.watched(*arguments, *options) | {"adapter": str(folder / "adapter_model.safetensors")}

    def components(self, name="components", **options):
        """The first COMPONENTS principal components of every module: equal ranks switch off the redistribution."""
        return self.ours(name, "--ranks", "uniform", "--rank", COMPONENTS, **options)

    def initialised(self, tau=1):
        return self.ours("timed", "--rank", RANK, "--rho", RHO, tau=tau)

    def watched(self, *arguments):
        """A run with its peak memory in MiB: of the GPU if there is one, else of the process."""
        if str(self.device).startswith("cuda"):
            with GpuPeak() as peak:
                result = run(*arguments)
            return result | {"peak_mebibytes": peak.mebibytes}
        result = run(*arguments)
        return result | {"peak_mebibytes": result["peak_rss_bytes"] / 2**20}

    def pairs(self, count=PAIRS, tau=1):
        """Runs of the plain pass and of eva-onnx, alternating, so that a slow spell of the machine meets both."""
        runs = {"plain": [], "ours": []}
        for pair in range(count):
            programs = [("plain", self.plain), ("ours", lambda: self.initialised(tau))]
            for name, program in programs if pair % 2 == 0 else reversed(programs):
                runs[name].append(program())
        return runs


def ratios(runs, key):
    """What eva-onnx takes of what the plain pass takes: ratio of the medians, smallest and largest of a pair."""
    plain, ours = ([run["used"][key] for run in runs[name]] for name in ("plain", "ours"))
    of_pairs = [b / a for a, b in zip(plain, ours)]
    return statistics.median(ours) / statistics.median(plain), min(of_pairs), max(of_pairs)


def median(runs, key):
    return statistics.median(run["used"][key] for run in runs)


def peak(runs):
    """The largest memory of all runs, in GiB."""
    return max(run["peak_mebibytes"] for run in runs) / 1024
