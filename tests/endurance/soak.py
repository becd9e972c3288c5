"""Runs `init` and then `train` for a long time, and watches memory, open files and threads.

    python tests/endurance/soak.py [--minutes M] [--binary FILE] [--work DIR] [--csv FILE]

For three quarters of the time, `init` reads rows from a pipe that does not end before; for the rest, `train` steps over rows
and writes a checkpoint every 50 steps, until it is interrupted. Both must then write an adapter. The resident memory, open
files and threads of the process are read every second. Prints a table of the minutes of each run and the bounds: the mean of
the last quarter may exceed that of the second quarter by GROWTH, and the least number of files and of threads may not grow: a
checkpoint opens files for a moment. Exits with status 1 above a bound.
"""

import argparse
import csv
import json
import random
import shutil
import signal
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from commands import BINARY, COMMANDS, ROWS, RUN, RUNTIME, TARGET, Work, table

# What the mean resident memory of the last quarter may exceed that of the second by, as a share and in bytes for each
# batch between their middles: the record of a batch or a step, in memory with room for as many again.
GROWTH = 0.01
BYTES_A_BATCH = {"init": 2 * 48, "train": 2 * 48}


@dataclass
class Sample:
    """A process at one time."""

    second: float
    rss: int
    files: int
    threads: int


def sample(pid, started):
    """What the kernel says of a process; nothing once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines if ":" in line)
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        return Sample(time.monotonic() - started, int(status["VmRSS"].split()[0]) << 10, files, int(status["Threads"]))
    except (OSError, KeyError):
        return None


def watch(process, seconds, end):
    """Samples of a process every second; after so many seconds, `end` ends it."""
    started, samples, ended = time.monotonic(), [], False
    while process.poll() is None:
        found = sample(process.pid, started)
        if found and not ended:
            samples.append(found)
        if time.monotonic() - started > seconds and not ended:
            ended = True
            end()
        time.sleep(1)
    return samples


def feed(pipe, stop):
    """Writes rows until it is told to stop: those of the calibration data in ever other orders and pieces."""
    rows, rng = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()], random.Random(0)
    try:
        while not stop.is_set():
            one, other = rng.choices(rows, k=2)
            answer = other["answer"][: rng.randrange(1, 400)]
            pipe.write(json.dumps({"question": one["question"], "answer": answer}) + "\n")
        pipe.close()
    except (BrokenPipeError, ValueError):
        pass


def init(work, seconds):
    """`init` over a pipe that is closed in the end."""
    arguments = ["init", "in/model.onnx", "--data", "-", *RUNTIME, "--out", "out", "--tau", "1", "--json"]
    with (work.folder / "printed").open("w") as out:
        process = subprocess.Popen([str(work.binary), *arguments], cwd=work.folder, stdin=subprocess.PIPE, stdout=out, text=True)
    stop = threading.Event()
    feeder = threading.Thread(target=feed, args=(process.stdin, stop), daemon=True)
    feeder.start()
    samples = watch(process, seconds, stop.set)
    report = json.loads((work.folder / "printed").read_text())
    right = process.returncode == 0 and (work.folder / "out/adapter_model.safetensors").exists()
    return samples, report["batches"], right, f"status {process.returncode}, {report['tokens_seen']} tokens"


def train(work, seconds):
    """`train` that is interrupted in the end."""
    arguments = ["train", "in/model.onnx", *RUN, "--out", "trained", "--adapter", "out", "--steps", 10**8, "--save-every", 50]
    process = subprocess.Popen([str(work.binary), *map(str, arguments)], cwd=work.folder, stdout=subprocess.DEVNULL)
    samples = watch(process, seconds, lambda: process.send_signal(signal.SIGTERM))
    report = json.loads((work.folder / "trained/train.json").read_text())
    right = process.returncode == 130 and (work.folder / "trained/adapter_model.safetensors").exists()
    return samples, len(report["steps"]), right, f"status {process.returncode}"


def quarters(samples):
    size = len(samples) // 4
    return [samples[at * size:(at + 1) * size] for at in range(4)]


def judge(name, samples, batches):
    """The table of the minutes, and the lines of the bounds with whether they hold."""
    rows = []
    last = samples[-1].second if samples else 0
    for minute in range(int(last // 60) + 1):
        of_minute = [s for s in samples if s.second // 60 == minute]
        if of_minute:
            rss = [s.rss / 2**20 for s in of_minute]
            counts = [f"{min(v)}-{max(v)}" for v in ([s.files for s in of_minute], [s.threads for s in of_minute])]
            rows.append([name, minute, f"{statistics.fmean(rss):.1f}", f"{max(rss):.1f}", *counts])
    table(["run", "minute", "mean MiB", "largest MiB", "open files", "threads"], rows)
    if len(samples) < 40:
        return [f"{name}: {len(samples)} samples are too few"], False
    _, second, _, fourth = quarters(samples)
    mean = lambda quarter: statistics.fmean(s.rss for s in quarter)
    allowed = GROWTH * mean(second) + BYTES_A_BATCH[name] * batches / 2
    grown = mean(fourth) - mean(second)
    lines = [f"{name}: last quarter's mean above the second's: {grown / 2**20:+.2f} MiB, of {mean(second) / 2**20:.1f} MiB; "
             f"at most {allowed / 2**20:.2f} MiB: {'holds' if grown <= allowed else 'MISSED'}"]
    fine = grown <= allowed
    for what in ("files", "threads"):
        least = [min(getattr(s, what) for s in quarter) for quarter in (second, fourth)]
        fine &= least[1] <= least[0]
        lines.append(f"{name}: least {what} in the second quarter {least[0]}, in the last {least[1]}: "
                     f"{'holds' if least[1] <= least[0] else 'MISSED'}")
    return lines, fine


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--binary", type=Path, default=BINARY)
    parser.add_argument("--work", type=Path, default=TARGET / "endurance/soak")
    parser.add_argument("--csv", type=Path, help="also write every sample to this file")
    args = parser.parse_args()
    command = next(command for command in COMMANDS if command.name == "init")
    work = Work(args.work, args.binary, replace(command, rows=256))
    lines, fine, all_samples = [], True, []
    for name, run, share in (("init", init, 0.75), ("train", train, 0.25)):
        samples, batches, right, said = run(work, args.minutes * 60 * share)
        all_samples += [(name, s) for s in samples]
        judged, holds = judge(name, samples, batches)
        lines += [f"{name}: {batches} {'batches' if name == 'init' else 'steps'} in {samples[-1].second:.0f} s, {said}", *judged]
        fine &= right and holds
        print(flush=True)
    print("\n".join(lines))
    if args.csv:
        with args.csv.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["run", "second", "rss", "files", "threads"])
            writer.writerows([name, f"{s.second:.1f}", s.rss, s.files, s.threads] for name, s in all_samples)
    shutil.rmtree(args.work)
    raise SystemExit(not fine)


if __name__ == "__main__":
    main()
