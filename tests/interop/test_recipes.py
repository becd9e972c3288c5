"""The recipes that need Python packages: Ray, and a reader of YAML. Ray is large: without it, its test is skipped."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import GRAPHS, ROOT

MODEL = GRAPHS / "example/dynamo/model.onnx"
OPTIONS = ["--device", "cpu", "--max-length", "48"]


@pytest.fixture
def rows(tmp_path):
    """The first rows of the calibration data."""
    path = tmp_path / "calibration.jsonl"
    path.write_text("".join((ROOT / "fixtures/calibration.jsonl").read_text().splitlines(keepends=True)[:12]))
    return path


def parts(folder):
    return json.loads((folder / "eva.json").read_text())["parts"]


def test_ray(rows, tmp_path):
    """Two workers on this machine, of which one is killed once."""
    pytest.importorskip("ray")
    killed = tmp_path / "killed"
    program = tmp_path / "program"
    program.write_text(f"""#!/bin/sh
case "$*" in *--shard\\ 1/3*) if [ ! -e {killed} ]; then touch {killed}; kill -9 $$; fi ;; esac
exec {shlex.quote(os.environ["EVA_ONNX"])} "$@"
""")
    program.chmod(0o755)
    out = tmp_path / "adapter"
    command = [sys.executable, ROOT / "recipes/ray_shards.py", MODEL, rows, out, "--shards", "3", "--cpus", "1", *OPTIONS]
    environment = os.environ | {"EVA_ONNX": str(program), "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert killed.exists()
    assert done.stdout.count("summary of shard") == 3
    assert [part["shard"]["index"] for part in parts(out)] == [0, 1, 2]


def test_kubernetes(rows, tmp_path):
    """What the pods run, with this folder as their volume."""
    jobs = list(yaml.safe_load_all((ROOT / "recipes/kubernetes.yaml").read_text()))
    assert [job["kind"] for job in jobs] == ["Job", "Job"]
    shards, merge = (job["spec"] for job in jobs)
    assert shards["completionMode"] == "Indexed"
    (tmp_path / "model.onnx").symlink_to(MODEL)
    for name in ("tokenizer.json", "config.json"):
        (tmp_path / name).symlink_to(MODEL.parent / name)

    def run(spec, **variables):
        (container,) = spec["template"]["spec"]["containers"]
        program = Path(os.environ["EVA_ONNX"])
        (text,) = container["args"]
        command = [*container["command"], text.replace("/data/", f"{tmp_path}/")]
        path = f"{program.parent}:{os.environ['PATH']}"
        subprocess.run(command, env=os.environ | variables | {"PATH": path}, check=True)

    for index in range(shards["completions"]):
        run(shards, JOB_COMPLETION_INDEX=str(index))
    run(merge)
    assert len(parts(tmp_path / "adapter")) == shards["completions"]
