"""The commands that write, on the example model, each in a folder of its own.

Only Python's standard library is needed. The program's runtime is found as always, by VIRTUAL_ENV or ORT_DYLIB_PATH.
"""

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARY = TARGET / "release/eva-onnx"
MODEL = ROOT / "graphs/example/dynamo"
ROWS = ROOT / "fixtures/calibration.jsonl"

# What of a report belongs to the process, and not to the result.
OF_PROCESS = {
    "eva.json": ("seconds", "peak_rss_bytes", "command"),
    "train.json": ("seconds", "seconds_until_first_step", "peak_rss_bytes", "resumed_after_step"),
}
# How the names of folders end in which outputs are made, and that of a folder whose files are being moved.
PARTIAL, COMPLETE = ".eva-onnx-partial", ".eva-onnx-complete"


@dataclass
class Command:
    """A command, whose paths are those in its folder."""

    name: str
    arguments: list
    out: str
    # Options of a run that keeps its state, and those with which it goes on.
    keeps: list = field(default_factory=list)
    resumes: list = field(default_factory=list)
    # Where the state is: a file or a folder, and a file in it once there is something to go on from.
    state: str = ""
    begun: str = ""
    # Rows of the calibration data in `rows.jsonl`.
    rows: int = 256
    # What `eva-onnx check` reads of the output, beside the model.
    checked: list = field(default_factory=list)

    def line(self, binary, kept=True):
        return [str(binary), *self.arguments, *(self.keeps if kept else [])]


RUNTIME = ["--device", "cpu", "--threads", "1", "--no-progress", "--max-length", "64"]
RUN = ["--data", "in/rows.jsonl", *RUNTIME]
ADAPTER = ["check", "in/model.onnx", "out"]
TRAIN = ["train", "in/model.onnx", *RUN, "--out", "out", "--adapter", "in/adapter", "--no-check", "--batch-size", "2"]
INIT = ["init", "in/model.onnx", *RUN, "--out", "out", "--tau", "1"]

COMMANDS = [
    Command("init", [*INIT, "--batch-size", "2"], "out", ["--checkpoint-every", "4"], ["--resume"],
            state="out.checkpoint", checked=ADAPTER),
    Command("init --blocks", [*INIT, "--blocks", "4"], "out", ["--spill", "states"], ["--resume"], state="states",
            begun="eva-block-1", checked=ADAPTER),
    Command("train", [*TRAIN, "--steps", "40"], "out", ["--save-every", "4"], ["--resume"], state="out/checkpoints",
            begun="step-*", rows=128, checked=ADAPTER),
    Command("splice", ["splice", "in/model.onnx", "in/adapter", "--as", "merged", "--out", "out"], "out",
            checked=["check", "out/model.onnx", "in/adapter"]),
    Command("merge", ["merge", "in/part-0", "in/part-1", "--out", "out"], "out", checked=ADAPTER),
]


class Work:
    """A folder with the inputs of a command, and what it writes."""

    def __init__(self, folder, binary, command):
        self.folder, self.binary, self.command = Path(folder), Path(binary).resolve(), command
        shutil.rmtree(self.folder, ignore_errors=True)
        inputs = self.folder / "in"
        inputs.mkdir(parents=True)
        for file in ("model.onnx", "tokenizer.json", "config.json"):
            shutil.copyfile(MODEL / file, inputs / file)
        rows = ROWS.read_text(encoding="utf-8").splitlines(keepends=True)
        (inputs / "rows.jsonl").write_text("".join(rows[: command.rows]), encoding="utf-8")
        short = ["init", "in/model.onnx", *RUN, "--max-batches", "4"]
        if "in/adapter" in command.arguments:
            self.must(short + ["--out", "in/adapter"])
        for part in range(2 if command.name == "merge" else 0):
            self.must(short + ["--rank", "32", "--shard", f"{part}/2", "--summary", f"in/part-{part}"])
        if command.name == "splice":
            enlarge(inputs / "model.onnx")
        self.inputs = tree(inputs)

    def must(self, arguments):
        done = subprocess.run([str(self.binary), *arguments], cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)}: status {done.returncode}\n{done.stderr}")

    def start(self, line):
        return subprocess.Popen(line, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def run(self, line):
        process = self.start(line)
        said = process.communicate()[1]
        return process.returncode, said

    def has_state(self):
        """Whether there is something to go on from."""
        state = self.folder / self.command.state
        return bool(self.command.state) and (any(state.glob(self.command.begun)) if self.command.begun else state.exists())

    def result(self):
        """The files of the output without its state, by name, with a hash of what counts in them; empty if there are none."""
        files = tree(self.folder / self.command.out)
        is_state = lambda name: f"{self.command.out}/{name}".startswith(f"{self.command.state}/")
        staged = lambda name: any(PARTIAL in part or part == COMPLETE for part in Path(name).parts)
        return {name: sha for name, sha in files.items() if not is_state(name) and not staged(name)}

    def left(self):
        """Staging folders that are there."""
        return [path for path in self.folder.rglob("*") if path.name.endswith(PARTIAL) or path.name == COMPLETE]

    def others(self):
        """What is in the folder beside the inputs, the output and the state."""
        known = {"in", self.command.out, self.command.state.split("/")[0]}
        return sorted(path.name for path in self.folder.iterdir() if path.name not in known)

    def clear(self):
        """Removes everything but the inputs."""
        for path in self.folder.iterdir():
            if path.name != "in":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def inputs_are_whole(self):
        return tree(self.folder / "in") == self.inputs


def tree(folder):
    """The files below a folder, by name, with a hash of what counts in them."""
    files = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = hashlib.sha256(content(path)).hexdigest()
    return files


def content(path):
    """The bytes of a file, of a report those that do not belong to the process."""
    data = path.read_bytes()
    if path.name not in OF_PROCESS:
        return data
    try:
        report = json.loads(data)
    except ValueError:
        return data
    for name in OF_PROCESS[path.name]:
        report.pop(name, None)
    for step in report.get("steps", []):
        step.pop("seconds", None)
    return json.dumps(report).encode()


def enlarge(model, megabytes=24):
    """Appends metadata to a model, so that writing it takes a while: a field of a message may follow at its end."""
    def delimited(number, data):
        length, size = b"", len(data)
        while True:
            length += bytes([size % 128 + (128 if size > 127 else 0)])
            size //= 128
            if not size:
                return bytes([number << 3 | 2]) + length + data
    entry = delimited(1, b"ballast") + delimited(2, b"x" * (megabytes << 20))
    with model.open("ab") as file:
        file.write(delimited(14, entry))


def table(columns, rows):
    """Prints a Markdown table."""
    for row in (columns, ["---"] * len(columns), *rows):
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
