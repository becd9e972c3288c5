"""Fuzzes every kind of file for some time each, and prints how often it was read.

    python fuzz/run.py [--seconds T] [--cargo COMMAND] [TARGET ...]

Starts from fuzz/seeds and what earlier runs found worth keeping (fuzz/corpus). A finding ends the run of its target, and the
script with status 1 in the end; its file is below fuzz/artifacts. The dependencies are those of Cargo.lock.
"""

import argparse
import re
import shutil
import subprocess
from pathlib import Path

FUZZ = Path(__file__).resolve().parent
# Of memory in MiB and seconds, for one file.
LIMITS = ["-rss_limit_mb=2048", "-timeout=20"]


def fuzz(cargo, target, seconds):
    """Runs a target; the row of the table, and whether nothing was found."""
    corpus = FUZZ / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    command = [*cargo, "fuzz", "run", target, corpus, FUZZ / "seeds" / target, "--"]
    command += [f"-max_total_time={seconds}", "-print_final_stats=1", *LIMITS]
    process = subprocess.Popen(list(map(str, command)), cwd=FUZZ.parent, stderr=subprocess.PIPE, text=True, errors="replace")
    runs, covered, found = 0, "-", []
    for line in process.stderr:
        print(line, end="", flush=True)
        counts = re.findall(r"^#(\d+)|number_of_executed_units: (\d+)", line)
        runs = max([runs, *(int(one or other) for one, other in counts)])
        covered = (re.findall(r" cov: (\d+)", line) or [covered])[-1]
        found += re.findall(r"Test unit written to (\S+)", line)
    process.wait()
    if process.returncode and not found:
        found = [f"status {process.returncode}"]
    files = len(list(corpus.iterdir()))
    return [target, runs, covered, files, ", ".join(Path(name).name for name in found) or "none"], not found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--cargo", default="cargo +nightly", help="a cargo whose compiler has sanitizers")
    args = parser.parse_args()
    shutil.copyfile(FUZZ.parent / "Cargo.lock", FUZZ / "Cargo.lock")
    targets = args.targets or sorted(path.stem for path in (FUZZ / "fuzz_targets").glob("*.rs"))
    rows, fine = [["target", "executions", "edges covered", "files kept", "findings"], ["---"] * 5], True
    for target in targets:
        row, nothing = fuzz(args.cargo.split(), target, args.seconds)
        rows.append(row)
        fine &= nothing
    print("\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows))
    raise SystemExit(not fine)


if __name__ == "__main__":
    main()
