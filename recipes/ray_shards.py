"""Shards as tasks of a Ray cluster, and the adapter of all of them.

    python recipes/ray_shards.py model.onnx calibration.jsonl adapter --shards 8 --cpus 4

All paths must be on a file system that every node sees. Options that this program does not know go to `eva-onnx init`.
"""

import argparse
import os
import subprocess
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
import ray


class Lost(Exception):
    """The process was killed: worth another try, which goes on where it was."""


@ray.remote(max_retries=5, retry_exceptions=[Lost])
def shard(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode < 0 or done.returncode == 130:
        raise Lost(f"ended by a signal: {done.stderr}")
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--cpus", type=int, default=4, help="cores of a task")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs of a task")
    args, options = parser.parse_known_args()
    eva = os.environ.get("EVA_ONNX", "eva-onnx")
    parts = Path(f"{args.out.absolute()}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    files = [f"{parts}/{i}-of-{args.shards}.safetensors" for i in range(args.shards)]
    # Ray sets OMP_NUM_THREADS to 1 in its workers, so the number of threads is said.
    init = [eva, "init", str(args.model.absolute()), "--data", str(args.data.absolute()), "--no-progress",
            "--threads", str(args.cpus), "--checkpoint-every", "50", "--resume", *options]

    ray.init()
    task = shard.options(num_cpus=args.cpus, num_gpus=args.gpus)
    runs = [task.remote([*init, "--shard", f"{i}/{args.shards}", "--summary", file]) for i, file in enumerate(files)]
    for report in ray.get(runs):
        print(report, end="")
    subprocess.run([eva, "merge", *files, "--out", str(args.out)], check=True)


if __name__ == "__main__":
    main()
