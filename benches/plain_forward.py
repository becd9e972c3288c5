"""A plain ONNX Runtime forward pass, without the output head: the least that any calibration must cost.

    python benches/plain_forward.py prune MODEL PRUNED
    python benches/plain_forward.py run PRUNED ROWS BATCH_SIZE

`run` prints the seconds and the peak memory as JSON.
"""

import json
import sys
import time
from pathlib import Path


def prune(source, target):
    """Copies a model whose only output is the first one, or what the output head reads if that is `logits`."""
    import onnx

    model = onnx.load(source)
    graph = model.graph
    producers = {output: node for node in graph.node for output in node.output}
    output = graph.output[0].name
    if output == "logits":
        node = producers[output]
        while node.op_type not in ("MatMul", "Gemm"):
            node = producers[node.input[0]]
        output = node.input[0]

    needed, pending = set(), [output]
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            if name in producers:
                pending.extend(producers[name].input)
    nodes = [node for node in graph.node if needed.intersection(node.output)]
    weights = [weight for weight in graph.initializer if weight.name in needed]
    for field, kept in ((graph.node, nodes), (graph.initializer, weights)):
        del field[:]
        field.extend(kept)
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    target.parent.mkdir(parents=True, exist_ok=True)
    data = target.with_name(target.name + ".data")
    data.unlink(missing_ok=True)
    onnx.save(model, target, save_as_external_data=True, location=data.name)


def run(model, rows, size):
    import onnxruntime

    import batches

    started = time.perf_counter()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    load = time.perf_counter() - started
    forward = 0.0
    for batch in batches.read(rows, size):
        feed = {value.name: fill(value, batch) for value in session.get_inputs()}
        started = time.perf_counter()
        session.run(None, feed)
        forward += time.perf_counter() - started
    return {"load": load, "forward": forward, "peak_rss_bytes": batches.peak_rss()}


def fill(value, batch):
    """What a graph input is given; the key-value cache is empty."""
    import numpy as np

    if value.name in batch:
        return batch[value.name]
    rows, length = batch["input_ids"].shape
    if value.name == "position_ids":
        return np.tile(np.arange(length), (rows, 1))
    if value.name == "token_type_ids":
        return np.zeros((rows, length), dtype=np.int64)
    if value.name.startswith("past_key_values."):
        _, heads, _, width = value.shape
        return np.zeros((rows, heads, 0, width), dtype=np.float32)
    raise ValueError(f"unknown graph input {value.name}")


def main():
    command, *arguments = sys.argv[1:]
    if command == "prune":
        source, target = map(Path, arguments)
        prune(source, target)
    elif command == "run":
        model, rows, size = arguments
        print(json.dumps(run(model, rows, int(size))))
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
