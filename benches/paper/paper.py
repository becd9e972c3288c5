"""Tries the claims of the EVA paper at a small scale, with `eva-onnx init` and `eva-onnx train`.

    python benches/paper/paper.py [--quick] [--device cpu] [--data FILE] [--seeds N] [--only PART,...]

Writes benches/paper.md and benches/paper.html, and what they are made of to target/bench/paper, a file a part: parts that
ran before with the same scale stay. --quick takes less than 20 minutes on two cores; without it, use a GPU.
"""

import argparse
import datetime
import json
import time
from pathlib import Path

from starts import Program

import bench
import bench_cuda
from programs import ROOT, TARGET
from results import commit

import contents
import page

PARTS = ["language", "components", "share", "digits", "robot"]
# Sizes of batches, and orders of the rows, that components are compared over.
SIZES, ORDERS = {True: [4, 16], False: [4, 8, 16, 32]}, {True: 2, False: 3}


def measure(part, options, folder):
    """The figures of a part; those that others left in the folder are read."""
    program = Program(options.binary, options.device, folder)
    if part in ("language", "components"):
        import language
        import study

        task = language.task(options, folder / "language")
        if part == "language":
            return study.run(program, task, options.seeds)
        return language.components(program, task, SIZES[options.quick], ORDERS[options.quick])
    if part == "share":
        import language

        return language.share_of_init(read(folder, "language"), read(folder, "components"))
    if part == "digits":
        import digits
        import study

        return study.run(program, digits.task(options, folder / "digits"), options.seeds, digits.accuracy)
    import robot
    import study

    return study.run(program, robot.task(options, folder / "robot"), options.seeds, robot.success)


def read(folder, part):
    path = folder / f"{part}.json"
    if not path.is_file():
        raise SystemExit(f"{path} is missing: run the part `{part}` first")
    return json.loads(path.read_text())


def setup(options):
    kind = options.device.split(":")[0]
    machine = bench.machine() if kind == "cpu" else bench_cuda.gpus()[0]
    about = {"commit": commit(), "date": str(datetime.date.today()), "machine": machine, "device": options.device}
    return about | {"quick": options.quick, "seconds": {}}


def write(folder, out):
    """The pages, of all parts that ran."""
    found = {part: read(folder, part) for part in ["setup", *PARTS] if (folder / f"{part}.json").is_file()}
    made = contents.of(found)
    out.with_suffix(".md").write_text(page.markdown(made))
    out.with_suffix(".html").write_text(page.page(made))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps, shorter rows")
    parser.add_argument("--device", default="cpu", help="of eva-onnx; cuda for a GPU")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", type=lambda text: text.split(","), default=PARTS, metavar="PART,...", help=",".join(PARTS))
    parser.add_argument("--models", type=Path, default=TARGET / "bench/models", help="what export_models.py wrote")
    parser.add_argument("--export", default="dynamo", help="of SmolLM2")
    parser.add_argument("--data", type=Path, default=ROOT / "fixtures/calibration.jsonl", help="rows of GSM8K")
    parser.add_argument("--binary", type=Path, default=TARGET / "release/eva-onnx")
    parser.add_argument("--work", type=Path, default=TARGET / "bench/paper")
    parser.add_argument("--out", type=Path, default=ROOT / "benches/paper.md", help="and the same with .html")
    return parser.parse_args()


def main():
    options = arguments()
    folder = options.work / ("quick" if options.quick else "full")
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "setup.json"
    about = setup(options) | {"seconds": json.loads(kept.read_text())["seconds"] if kept.is_file() else {}}
    for part in options.only:
        started = time.perf_counter()
        found = measure(part, options, folder)
        about["seconds"][part] = time.perf_counter() - started
        (folder / f"{part}.json").write_text(json.dumps(found))
        kept.write_text(json.dumps(about))
    write(folder, options.out)


if __name__ == "__main__":
    main()
