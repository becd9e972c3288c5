"""Runs eva-onnx: the starts that are compared, and trainings from them."""

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import programs


@dataclass
class Task:
    """A model, its rows, and how an adapter of it is trained."""

    name: str
    model: Path
    rows: Path
    held_out: Path
    rank: int
    # The rate of all methods but the tuned one, and the rates that this one chooses from.
    rate: float
    rates: list
    steps: int
    batch_size: int
    init_batches: int
    # Batches of this size fit every row of the data.
    max_length: int = 512
    # Further arguments of `train`, and of `init`.
    training: list = field(default_factory=list)
    selection: list = field(default_factory=list)


class Program:
    """The binary, the device it uses, and the folder it writes to."""

    def __init__(self, binary, device, work):
        self.binary, self.device, self.work = binary, device, work

    def run(self, command, *arguments):
        """What `eva-onnx COMMAND --json` prints, with the seconds of the process under `used`."""
        arguments = [self.binary, command, *arguments, "--device", self.device, "--json", "--no-progress", "--force"]
        return programs.run(*arguments)

    def init(self, task, name, *options, seed=0, batch_size=None):
        """eva.json of an adapter that EVA initialises on the rows in the order of the seed, and its folder."""
        out = self.work / task.name / name
        arguments = [task.model, "--data", task.rows, "--out", out, "--rank", task.rank, "--alpha", task.rank]
        arguments += ["--shuffle", "--seed", seed, "--batch-size", batch_size or task.batch_size]
        arguments += ["--max-length", task.max_length, *task.selection, *options]
        return self.run("init", *arguments) | {"folder": out}

    def train(self, task, name, adapter, seed, rate):
        """train.json of a training on the rows in the order of the seed, and its folder."""
        out = self.work / task.name / name
        arguments = [task.model, "--data", task.rows, "--adapter", adapter, "--eval", task.held_out, "--out", out]
        arguments += ["--seed", seed, "--lr", rate, "--steps", task.steps, "--batch-size", task.batch_size]
        arguments += ["--schedule", "linear", "--warmup", max(1, round(0.03 * task.steps))]
        arguments += ["--max-length", task.max_length, *task.training]
        return self.run("train", *arguments) | {"folder": out}

    def merged(self, task, adapter):
        """The model with a trained adapter in its weights."""
        out = adapter.with_name(adapter.name + "-merged")
        shutil.rmtree(out, ignore_errors=True)
        command = [self.binary, "splice", task.model, adapter, "--as", "merged", "--out", out]
        subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL, check=True)
        return out / "model.onnx"


def default_start(eva, out, rank, seed):
    """PEFT's default start of the modules of an EVA adapter of equal ranks: a folder.

    A is uniform in +-1/sqrt(in): kaiming_uniform_ with a = sqrt(5), as `reset_lora_parameters` of
    peft/tuners/lora/layer.py has it. B is zero.
    """
    generator = np.random.default_rng(seed)
    tensors = load_file(eva / "adapter_model.safetensors")
    for name in sorted(tensors):
        values = tensors[name]
        if ".lora_A." in name:
            if values.shape[0] != rank:
                raise SystemExit(f"{name} has rank {values.shape[0]}, not {rank}: its input has too few directions")
            bound = 1 / np.sqrt(values.shape[1])
            tensors[name] = generator.uniform(-bound, bound, values.shape).astype(values.dtype)
        elif ".lora_B." in name:
            assert not values.any(), name
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(eva / "adapter_config.json", out)
    save_file(tensors, out / "adapter_model.safetensors")
    return out


def parameters(folder):
    """Trainable parameters of an adapter."""
    tensors = load_file(folder / "adapter_model.safetensors")
    return sum(values.size for name, values in tensors.items() if ".lora_" in name)


