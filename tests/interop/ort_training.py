"""Run by test_ort_training.py in an environment with onnxruntime-training-cpu and without PyTorch.

    python ort_training.py FOLDER BATCH.npz STEPS RATE OUT

FOLDER is what `splice --ort-training` wrote. OUT gets gradients.npz, losses.json and the trained model.
"""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np


def main(folder, batch, steps, rate, out):
    spec = importlib.util.spec_from_file_location("train", folder / "train.py")
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)

    out.mkdir()
    (out / "artifacts").mkdir()
    manifest = train.make_artifacts(folder, out / "artifacts")
    module, optimizer, state = train.load(out / "artifacts")
    optimizer.set_learning_rate(rate)
    batch = dict(np.load(batch))
    losses = []
    for step in range(steps):
        loss, *_ = module(*train.feed(manifest, batch))
        if step == 0:
            gradients = {name: state.parameters[name].grad for name in manifest["trainable"]}
            np.savez(out / "gradients.npz", **gradients)
        optimizer.step()
        module.lazy_reset_grad()
        losses.append(float(loss))
    (out / "losses.json").write_text(json.dumps(losses))
    module.export_model_for_inferencing(str(out / "model.onnx"), [manifest["logits"]])
    for name in ["manifest.json", "config.json"]:
        if (folder / name).exists():
            shutil.copy(folder / name, out / name)


if __name__ == "__main__":
    folder, batch, steps, rate, out = sys.argv[1:]
    main(Path(folder), Path(batch), int(steps), float(rate), Path(out))
