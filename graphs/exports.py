"""Exports transformers models to ONNX and compares the files with PyTorch."""

import json

import numpy as np
import onnxruntime
import torch
from transformers.pytorch_utils import Conv1D

DYNAMIC = {0: "batch", 1: "sequence"}
SHAPES = [(1, 1), (1, 7), (3, 16), (2, 33)]


def dynamo(model, folder, outputs, *, optimize=True, external_data=False):
    """Writes FOLDER/model.onnx with torch.onnx.export(dynamo=True); turns the model's key-value cache off.

    Stack traces are dropped from the node metadata (they hold file paths of the exporting machine), and namespaces, which
    repeat the scopes and classes at length.
    """
    model.config.use_cache = False
    program = torch.onnx.export(
        model.eval(),
        kwargs=example_inputs(),
        dynamo=True,
        optimize=optimize,
        output_names=outputs,
        dynamic_shapes={name: DYNAMIC for name in example_inputs()},
        verbose=False,
    )
    for node in program.model.graph.all_nodes():
        for key in ("namespace", "pkg.torch.onnx.stack_trace"):
            node.metadata_props.pop(key, None)
    folder.mkdir(parents=True, exist_ok=True)
    program.save(folder / "model.onnx", external_data=external_data)


def optimum(checkpoint, folder, task):
    """Writes FOLDER/model.onnx and its config and tokenizer files with Optimum."""
    from optimum.exporters.onnx import main_export

    main_export(str(checkpoint), folder, task=task, dtype="fp32", library_name="transformers", do_validation=False)


def compact(folder):
    """Puts every tokenizer under a folder on one line: most of it is indentation."""
    for path in folder.rglob("tokenizer.json"):
        tokenizer = json.loads(path.read_text())
        path.write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")) + "\n")


def example_inputs():
    """Two padded rows: the traced mask holds both values."""
    mask = torch.ones(2, 8, dtype=torch.int64)
    mask[1, 5:] = 0
    return {"input_ids": torch.arange(16).reshape(2, 8), "attention_mask": mask}


def check(model, path, tolerance):
    """Compares a graph with PyTorch over several batch and sequence sizes; exits if they differ by more than TOLERANCE.

    The first output is compared, at unmasked positions if it has a sequence dimension.
    """
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    output = session.get_outputs()[0].name
    generator = torch.Generator().manual_seed(0)
    differences = []
    for batch, sequence in SHAPES:
        ids = torch.randint(model.config.vocab_size, (batch, sequence), generator=generator)
        mask = torch.ones_like(ids)
        mask[-1, (sequence + 1) // 2 :] = 0
        with torch.no_grad():
            expected = model.eval()(input_ids=ids, attention_mask=mask)[0].numpy()
        (actual,) = session.run([output], feed(session, ids, mask))
        kept = mask.bool().numpy() if expected.ndim == 3 else ...
        differences.append(np.abs(actual - expected)[kept].max())
    worst = np.max(differences)
    name = f"{path.parent.parent.name}/{path.parent.name}"
    print(f"{name}: largest difference from PyTorch {worst:.1e}")
    if not worst <= tolerance:
        raise SystemExit(f"{name} does not match PyTorch")


def feed(session, ids, mask):
    """A value for every graph input; the key-value cache is empty."""
    batch, sequence = ids.shape
    values = {
        "input_ids": ids.numpy(),
        "attention_mask": mask.numpy(),
        "position_ids": np.tile(np.arange(sequence), (batch, 1)),
        "token_type_ids": np.zeros((batch, sequence), dtype=np.int64),
    }
    for value in session.get_inputs():
        if value.name.startswith("past_key_values."):
            _, heads, _, width = value.shape
            values[value.name] = np.zeros((batch, heads, 0, width), dtype=np.float32)
    return {value.name: values[value.name] for value in session.get_inputs()}


def linears(model):
    """The linear layers of a PyTorch model: module path, width and weight layout."""
    rows = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            rows.append((name, module.in_features, module.out_features, False))
        elif isinstance(module, Conv1D):
            rows.append((name, *module.weight.shape, True))
    keys = ("module", "in_features", "out_features", "fan_in_fan_out")
    return [dict(zip(keys, row)) for row in rows]
