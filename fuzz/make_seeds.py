"""Writes the seeds of the fuzz targets: small valid files of each kind, and files that say more than they hold.

    python fuzz/make_seeds.py

Needs numpy, onnx, onnxruntime and safetensors.
"""
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

SEEDS = Path(__file__).parent / "seeds"
MEDIA = Path(__file__).parent.parent / "fixtures/media"
DATA = Path(__file__).parent.parent / "fixtures/data"
W = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(3, 4), "fc.weight")


def seed(kind, name, content):
    path = SEEDS / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def model(name, nodes, initializers=(), inputs=("x",), outputs=("y",)):
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [value(i) for i in inputs], [value(o) for o in outputs], initializers)
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
    seed("model", name, made.SerializeToString())


def models():
    node = helper.make_node
    model("gemm", [node("Gemm", ["x", "fc.weight"], ["y"], "/fc/Gemm", transB=1)], [W])
    branch = lambda op, out: helper.make_graph(
        [node(op, ["h"], [out + "_in"]), node("Gemm", [out + "_in", "fc.weight"], [out], "/fc/Gemm", transB=1)],
        out, [], [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)])
    model("if", [node("Relu", ["x"], ["h"]), node("If", ["c"], ["y"], "choose", then_branch=branch("Sin", "t"),
          else_branch=branch("Cos", "e"))], [W], ("x", "c"))
    q = numpy_helper.from_array(np.arange(12, dtype=np.uint8).reshape(4, 3), "q")
    scale = numpy_helper.from_array(np.float32(0.5), "s")
    chain = [node("DequantizeLinear", ["q", "s"], ["d0"])]
    chain += [node("DequantizeLinear", [f"d{i}", f"d{i}"], [f"d{i + 1}"]) for i in range(30)]
    model("dequantize", chain + [node("MatMul", ["x", "d30"], ["y"], "/fc/MatMul")], [q, scale])
    model("reshape_cycle", [node("Reshape", ["fc.weight", "w"], ["w"]), node("MatMul", ["x", "w"], ["y"])], [W])
    large = TensorProto(name="fc.weight", dims=[1 << 31, 2], data_type=TensorProto.FLOAT, raw_data=bytes(8))
    model("declared", [node("MatMul", ["x", "fc.weight"], ["y"], "/fc/MatMul")], [large])
    outside = TensorProto(name="fc.weight", dims=[3, 4], data_type=TensorProto.FLOAT, data_location=1)
    outside.external_data.add(key="location", value="../weights")
    model("outside", [node("MatMul", ["x", "fc.weight"], ["y"], "/fc/MatMul")], [outside])
    seed("model", "empty_nodes", b"\x08\x0a\x3a\x80\x08" + b"\x0a\x00" * 512)


def matrices(**more):
    a, b = np.ones((2, 4), np.float32), np.zeros((3, 2), np.float32)
    return {"base_model.model.fc.lora_A.weight": a, "base_model.model.fc.lora_B.weight": b, **more}


def summary(name, change=lambda facts, tensors: None):
    """What `init --shard 0/2 --summary` writes for two modules that read one tensor of four features."""
    module = {"name": "fc", "in_features": 4, "out_features": 3, "fan_in_fan_out": False, "group": 0}
    options = {"max_length": 48, "batch_size": {"rows": 4}, "max_batches": None, "order": "grouped", "seed": 0}
    part = {"data": "d" * 64, "files": ["rows.jsonl"], "shard": {"index": 0, "count": 2}, "batches": 3,
            "tokens_seen": 20, "tokens_kept": 20, "rows": {"rows": 5, "empty": 0, "masked": 0, "truncated": 1},
            "bad_rows": {"count": 0, "first": []}, "unused": [], "stopped_by": "data", "device": "cpu",
            "events": {"split_batches": 0, "reloaded_in_f32": False, "counted_others": False},
            "onnxruntime": "1.32.0", "version": "0.1.0"}
    facts = {
        "run": {"path": "model.onnx", "model": "a" * 64, "encoder": None, "embed_tokens": None, "processor": None,
                "tokenizer": "b" * 64, "capture": "sketch", "components": 2, "options": options},
        "settings": {"rank": 1, "alpha": 1.0, "rho": 2.0, "tau": 1.0, "min_rank": 0, "ranks": "eva", "whiten": False},
        "base": {"name": None, "task_type": None, "names": None},
        "grouping": {"modules": [module, module | {"name": "gate"}],
                     "groups": [{"tensors": ["x"], "features": 4, "routed": False}]},
        "untargeted": ["lm_head"], "notes": [], "parts": [part], "format": 1,
    }
    tensors = {"groups.0.factor": np.eye(4, dtype=np.float32) * np.float32([[5], [3], [2], [1]]),
               "groups.0.mean": np.arange(4, dtype=np.float64), "groups.0.similarity": np.float64([0.99, 0.9]),
               "rows": np.uint64([20]), "total_variance": np.float64([40]), "noise": np.float64([1e-9])}
    change(facts, tensors)
    seed("summary", name, save(tensors, {"eva_onnx_summary": json.dumps(facts, separators=(",", ":"))}))


def summaries():
    summary("plain")
    summary("constant", lambda facts, tensors: tensors.update({"groups.0.factor": np.zeros((0, 4), np.float32)}))
    summary("largest", lambda facts, tensors: tensors.update({"groups.0.factor": np.full((4, 4), 3e38, np.float32)}))
    summary("shards", lambda facts, tensors: facts["parts"][0]["shard"].update(count=1 << 47))
    summary("modules", lambda facts, tensors: facts["grouping"]["modules"][1].update(out_features=1 << 62))


def main():
    shutil.rmtree(SEEDS, ignore_errors=True)
    models()
    summaries()
    half = {"fc.weight": np.ones((3, 4), np.float16), "empty": np.ones((0, 4), np.float32)}
    seed("checkpoint", "half", save(half))
    header = json.dumps({"w": {"dtype": "F32", "shape": [1 << 40, 2], "data_offsets": [0, 8]}}).encode()
    seed("checkpoint", "declared", len(header).to_bytes(8, "little") + header + bytes(8))
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["fc"], "rank_pattern": {"^f.": 2}}
    seed("peft", "plain", json.dumps(config).encode() + b"\n---\n" + save(matrices()))
    config |= {"use_rslora": True, "alpha_pattern": {"fc": 1}}
    seed("peft", "patterns", json.dumps(config).encode() + b"\n---\n" + save(matrices()))
    adapter = onnxruntime.AdapterFormat()
    adapter.set_adapter_version(1)
    adapter.set_model_version(1)
    value = onnxruntime.OrtValue.ortvalue_from_numpy
    adapter.set_parameters({"fc.lora_A.weight": value(np.ones((4, 2), np.float32)),
                            "fc.lora_B.weight": value(np.zeros((2, 3), np.float32))})
    path = SEEDS / "onnx_adapter" / "plain"
    path.parent.mkdir(parents=True)
    adapter.export_adapter(str(path))
    for file in ("alpha-16.png", "palette-clear.png", "grey-turned.jpg", "photo.jpg", "eight.wav", "stereo.wav", "stereo.flac"):
        seed("media", file.replace(".", "-"), (MEDIA / file).read_bytes())
    seed("media", "vit", json.dumps({"image_processor_type": "ViTImageProcessor", "size": {"height": 3, "width": 2}}).encode())
    seed("media", "whisper", json.dumps({"feature_extractor_type": "WhisperFeatureExtractor", "chunk_length": 1}).encode())
    lines = ['{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}', '{"text": "a\\u00e9\\ud83d\\ude00"}',
             '{"prompt": "p", "completion": "c", "pixel_values": [[0.5, -1e400], [1, 2]]}']
    seed("rows", "plain", "\n".join(lines).encode() + b"\n")
    seed("rows", "deep", b'{"a": ' + b"[" * 4096 + b"]" * 4096 + b"}\n")
    for name in ("compressed.npz", "arrays.npz", "columns-snappy.parquet", "columns-v2.parquet", "columns.jsonl.zst"):
        seed("rows", name, (DATA / name).read_bytes())
    seed("rows", "safetensors", save({"states": np.ones((2, 3), np.float32), "input_ids": np.ones((2, 4), np.int64)}))
    seed("rows", "bom", b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": null}')


main()
