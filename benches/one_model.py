"""One model as it is, in blocks, or divided among devices: time, memory, bytes read, and what physics allows."""

import json
import os
import random
import subprocess
import threading
import time
from pathlib import Path

import numpy as np

# Bytes that are read to measure the bandwidth of a disk, and the side of a square product that measures arithmetic.
SAMPLE, SIDE = 4 << 30, 4096


class Watch:
    """Largest memory of a process on GPUs and on the host, and bytes that it has read from disks, until it ends."""

    def __init__(self, process, on_gpu):
        self.process, self.on_gpu = process, on_gpu
        self.gpu = self.host = self.read = 0
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()

    def sample(self):
        folder = Path("/proc") / str(self.process.pid)
        while self.process.poll() is None:
            try:
                io = dict(line.split(": ") for line in (folder / "io").read_text().splitlines())
                status = (folder / "status").read_text().split("VmHWM:")
                self.read = int(io["read_bytes"])
                self.host = int(status[1].split()[0]) * 1024 if len(status) > 1 else self.host
            except (OSError, ValueError):
                return
            if self.on_gpu:
                self.gpu = max(self.gpu, gpu_memory(self.process.pid))
            time.sleep(0.05)


def gpu_memory(pid):
    """Bytes of all GPUs that a process has, as the driver says."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    lines = subprocess.run(query, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    used = (line.split(",") for line in lines if "," in line)
    return sum(int(memory) for of, memory in used if of.strip() == str(pid) and memory.strip().isdigit()) << 20


def write_rows(path, model, args):
    """Rows of random tokens that the model knows."""
    vocabulary = json.loads((model.parent / "config.json").read_text())["vocab_size"]
    draw = random.Random(0)
    rows = ([draw.randrange(vocabulary) for _ in range(args.length)] for _ in range(args.batches * args.batch_size))
    path.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))


def run(args, model, rows, out, options):
    """One run: its report, wall seconds, and the watch."""
    command = [args.binary, "init", model, "--data", rows, "--out", out, "--force", "--keep-order", "--tau", 1]
    command += ["--batch-size", args.batch_size, "--max-length", args.length, "--device", args.device]
    command += ["--json", "--no-progress", *options]
    started = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    watch = Watch(process, "cuda" in args.device)
    text = process.stdout.read()
    if process.wait():
        raise SystemExit(f"exit status {process.returncode}")
    wall = time.perf_counter() - started
    watch.thread.join()
    return json.loads(text), wall, watch


def bandwidth(file):
    """Bytes a second that a file is read with, from the disk where the system lets its pages go."""
    size = min(file.stat().st_size, SAMPLE)
    with open(file, "rb", buffering=0) as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        room, started, read = bytearray(16 << 20), time.perf_counter(), 0
        while read < size and (count := opened.readinto(room)):
            read += count
    return read / (time.perf_counter() - started)


def arithmetic(device, half):
    """Operations a second of a large product in ONNX Runtime on the first device."""
    import onnx
    import onnxruntime

    side = SIDE if "cuda" in device else SIDE // 4
    kind = onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT
    square = lambda name: onnx.helper.make_tensor_value_info(name, kind, [side, side])
    node = onnx.helper.make_node("MatMul", ["x", "y"], ["z"])
    graph = onnx.helper.make_graph([node], "product", [square("x"), square("y")], [square("z")])
    opset = [onnx.helper.make_opsetid("", 17)]
    made = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    first = device.split(",")[0]
    cuda = [("CUDAExecutionProvider", {"device_id": int(first.partition(":")[2] or 0)})]
    session = onnxruntime.InferenceSession(made, providers=cuda if "cuda" in first else ["CPUExecutionProvider"])
    values = np.ones((side, side), np.float16 if half else np.float32) / side
    binding = session.io_binding()
    place = ("cuda", cuda[0][1]["device_id"]) if "cuda" in first else ("cpu", 0)
    held = onnxruntime.OrtValue.ortvalue_from_numpy(values, *place)
    binding.bind_ortvalue_input("x", held)
    binding.bind_ortvalue_input("y", held)
    binding.bind_output("z", *place)
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds)


def floor(section, args, model):
    """Prints what physics allows: weights are read once, and every token passes every product once."""
    inspect = lambda *options: json.loads(
        subprocess.run([args.binary, "inspect", model, "--json", *options], stdout=subprocess.PIPE, check=True).stdout
    )
    cuts = inspect("--blocks", args.blocks.split(",")[0])["blocks"]
    weights = sum(block["weight_bytes"] for block in cuts)
    layers = inspect()["linears"]
    of_token = sum(2 * layer["in_features"] * layer["out_features"] for layer in layers)
    tokens = args.batches * args.batch_size * args.length
    data = max(model.parent.iterdir(), key=lambda file: file.stat().st_size)
    speed, rate = bandwidth(data), arithmetic(args.device, args.half)
    section.say(
        f"{weights / 1e9:.2f} GB of weights ({data.stat().st_size / 1e9:.2f} GB on the disk), {tokens} tokens of "
        f"{of_token / 1e9:.2f} GFLOP. The floor: weights read once at {speed / 1e9:.2f} GB/s, {weights / speed:.1f} s; "
        f"products at {rate / 1e12:.2f} TFLOP/s, {tokens * of_token / rate:.1f} s.\n"
    )


def measure(section, args, work):
    """A table of runs of `args.model`."""
    model, rows = args.model, work / "rows.jsonl"
    work.mkdir(parents=True, exist_ok=True)
    write_rows(rows, model, args)
    section.say(f"### {model.parent.name}, {args.batches} batches of {args.batch_size} x {args.length} tokens\n")
    floor(section, args, model)
    runs = [] if args.no_whole else [("whole", [])]
    runs += [(size, ["--blocks", size]) for size in args.blocks.split(",") if "," not in args.device]
    if "," in args.device:
        runs.append(("layers divided", ["--split", "layers"]))
    table = []
    for name, options in runs:
        report, wall, watch = run(args, model, rows, work / "adapter", options)
        gigabytes = [f"{bytes / 1e9:.2f}" for bytes in (watch.gpu, watch.host, watch.read)]
        table.append([name, args.device, f"{wall:.1f}", *gigabytes, "; ".join(report["notes"])])
    section.table(["", "on", "wall s", "GPU GB", "host GB", "read GB", "notes"], table)
