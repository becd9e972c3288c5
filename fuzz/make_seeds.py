"""Writes the seeds of the fuzz targets: small valid files of each kind, and files that say more than they hold.

    EVA_ONNX=target/debug/eva-onnx python fuzz/make_seeds.py

Needs numpy, onnx, onnxruntime, pyarrow and safetensors; the states of runs are those of the program.
"""
import json
import os
import shutil
import subprocess
import tempfile
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow
import pyarrow.parquet
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

SEEDS = Path(__file__).parent / "seeds"
FIXTURES = Path(__file__).parent.parent / "fixtures"
MEDIA, DATA = FIXTURES / "media", FIXTURES / "data"
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


def tables():
    seed("tables", "csv", b'question,answer\n"a ""b"", c",d\n"two\nlines",\r\n')
    seed("tables", "tsv", b"input_ids\tlabels\n[1, 2]\t[1, -100]\n")
    seed("tables", "paragraphs", "one\nparagraph\n\n\nanother \u2014 one\n".encode())
    seed("tables", "lines", b"a" * 5000 + b"\n" + b"b c " * 1000)
    seed("tables", "columns", b"text," + b",".join(b"%d" % at for at in range(200)) + b"\n")
    seed("tables", "latin-1", "größe,text\n1,a\n".encode("latin-1"))
    table = pyarrow.table({"text": ["a", None, "b"], "input_ids": [[1, 2], [], None], "more": [{"x": 1.5}] * 3})
    for name, options in {"plain": {"compression": "none"}, "v2": {"data_page_version": "2.0", "compression": "zstd"},
                          "dictionary": {"compression": "snappy", "use_dictionary": ["text"]}}.items():
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(table, sink, store_schema=False, **options)
        seed("parquet", name, sink.getvalue().to_pybytes())


def tokenizers():
    text = "\n---\nEl\u00e9phants  walk, 72 of them: \U0001f418!\n"
    for folder in sorted((FIXTURES / "tokenizers").iterdir()):
        if folder.is_dir():
            seed("tokenizer", folder.name, (folder / "tokenizer.json").read_bytes() + text.encode())
    whole = {"version": "1.0", "truncation": {"max_length": 4, "stride": 2, "strategy": "LongestFirst", "direction": "Left"},
             "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": 8, "pad_id": 7,
                         "pad_type_id": 0, "pad_token": "[PAD]"},
             "added_tokens": [{"id": 3, "content": "<s>", "single_word": False, "lstrip": True, "rstrip": False,
                               "normalized": False, "special": True}],
             "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "StripAccents"},
                            {"type": "Replace", "pattern": {"Regex": "(a+)+b"}, "content": "c"}]},
             "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\s+|\\p{N}"}, "behavior": "Isolated", "invert": False},
             "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                                {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                                {"Sequence": {"id": "B", "type_id": 1}}],
                                "special_tokens": {"<s>": {"id": "<s>", "ids": [3], "tokens": ["<s>"]}}},
             "decoder": None,
             "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["e", -1.5], ["ab", -2.0]]}}
    seed("tokenizer", "unigram", json.dumps(whole).encode() + text.encode())
    seed("tokenizer", "backtracking", json.dumps(whole).encode() + b"\n---\n" + b"a" * 40)


CONVERSATION = {"messages": [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "72"}]}
# What a template could ask for without end.
GREEDY = {
    "loops": "{% for a in range(9999) %}{% for b in range(9999) %}{{ messages[0].content }}{% endfor %}{% endfor %}",
    "doubling": "{% set n = namespace(t='xxxxxxxx') %}{% for i in range(64) %}{% set n.t = n.t + n.t %}{% endfor %}{{ n.t }}",
    "recursion": "{% macro m(x) %}{{ m(x + 1) }}{% endmacro %}{{ m(0) }}",
    "wide": "{{ 'x' * 9999999999 }}",
    "format": "{{ '%999999999d'|format(1) }}{{ '{:>999999999}'.format(1) }}",
    "indent": "{{ messages|tojson(indent=999999999) }}{{ 'a\nb'|indent(999999999) }}",
    "range": "{{ range(999999999)|list|length }}",
    "batch": "{{ [1]|batch(999999999, 0)|list }}{{ [1]|slice(999999999)|list }}",
    "deep": "{{ " + "(" * 2000 + "1" + ")" * 2000 + " }}",
    "blocks": "{% if 1 %}" * 500 + "{% endif %}" * 500,
    "replace": "{{ ('x' * 9999)|replace('', 'y' * 9999)|length }}{{ ('x' * 9999).replace('x', 'y' * 99999)|length }}",
    "join": "{{ (['x'] * 9999)|join('y' * 99999)|length }}",
}


def chats():
    row = json.dumps(CONVERSATION)
    golden = json.loads((FIXTURES / "chat/golden.json").read_text(encoding="utf-8"))
    for name in ("headers", "marked", "odd"):
        of_case = json.dumps(golden[name]["cases"][-1]["row"])
        seed("chat", name, "\n---\n".join([golden[name]["template"], of_case, '{"bos_token": "<s>"}']).encode())
    config = {"chat_template": [{"name": "default", "template": "{{ messages[0].content }}{{ eos_token }}"},
                                {"name": "tool_use", "template": "{{ tools|tojson }}"}],
              "eos_token": {"content": "</s>"}, "additional_special_tokens": ["<a>", {"content": "<b>"}]}
    seed("chat", "config", "\n---\n".join(["", row, json.dumps(config)]).encode())
    for name, template in GREEDY.items():
        seed("chat", f"slow-{name}", f"{template}\n---\n{row}".encode())


def settings():
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_attention_heads": 4, "hidden_size": 64,
              "num_key_value_heads": 2, "vocab_size": 400, "max_position_embeddings": 128, "pad_token_id": 4294967295,
              "id2label": {"0": "no", "1": "yes"}, "tie_word_embeddings": False}
    seed("settings", "config", json.dumps(config).encode())
    genai = {"model": {"type": "phi3", "vocab_size": 9, "decoder": {"filename": "model.onnx", "num_attention_heads": 2,
             "num_key_value_heads": 1, "head_size": 4}}}
    seed("settings", "genai", json.dumps(genai).encode())
    text = 'rank = 8\nout = "missing/out"\n[init]\ndata = ["a", "b"]\nbatch_size = 2\n[train]\nlr = 1e-3\nsave-every = 5\n'
    seed("config", "plain", text.encode())
    seed("config", "deep", b"rank = " + b"[" * 2000 + b"]" * 2000)
    seed("config", "odd", b'"to" = "\\u0041"\nalpha = inf\nquiet = true\nverbose = 3\nforce = false\ninit.rank = 0x10\n')
    layer = {"module": "layers.0.fc", "group": 0, "rank": 2, "alpha": 2.0, "in_features": 4, "out_features": 3,
             "explained_variance_ratio": [0.5, 0.25], "similarity": [1.0, 0.9], "converged": True}
    record = {"version": "0.1.0", "model": "m.onnx", "data": ["rows.jsonl"], "device": "CPU", "onnxruntime": "1.30.0",
              "capture": "sketch", "seed": 0, "rank": 1, "alpha": 1.0, "rho": 2.0, "tau": 0.99, "command": ["eva-onnx"],
              "budget": 2, "ranks_total": 2, "batches": 1, "tokens_seen": 9, "tokens_kept": 9, "converged": False,
              "stopped_by": "data", "notes": ["<b>a</b>"], "seconds": dict.fromkeys(
                  ["load", "forward_and_sketch", "decompose", "write", "total"], 0.5), "peak_rss_bytes": 1 << 27,
              "layers": [layer, layer | {"module": "layers.1.fc", "rank": 0}], "groups": [],
              "history": [{"tokens_seen": 9, "tokens_kept": 9, "converged": 1, "similarity": 0.5}]}
    seed("record", "run", json.dumps(record).encode())
    seed("record", "sizes", json.dumps(record | {"budget": 2**64 - 1, "layers": [
        layer | {"rank": 2**63, "in_features": 2**63, "out_features": 2**63, "explained_variance_ratio": [1e308, 1e308]}]}).encode())
    training = {"model": "m.onnx", "device": "CPU", "rate": 1e-3, "schedule": "cosine", "seconds": 1.5,
                "steps": [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.25}], "evaluations": [{"step": 2, "loss": 2.0}]}
    seed("record", "training", json.dumps(training).encode())
    far = [{"step": step, "loss": loss} for step, loss in ((0, -1e308), (2**64 - 1, 1e308), (5, 5e-324))]
    seed("record", "far", json.dumps(training | {"steps": far}).encode())


def training():
    """What `train` writes as a checkpoint of two parameters after one step."""
    columns = {name: np.float32([0.5, -1]) for name in ("theta", "mean", "square")}
    columns |= {name: np.float64([0.25]) for name in ("loss", "rate", "norm", "seconds")} | {"targets": np.uint64([3])}
    columns |= {"evaluation_step": np.uint64([1]), "evaluation_loss": np.float64([2]), "evaluation_targets": np.uint64([3])}
    crc = 0
    for column in columns.values():
        crc = zlib.crc32(column.tobytes(), crc)
    header = {"version": 1, "program": "0.1.0", "steps": 1, "planned": 9, "position": {"epoch": 0, "batch": 1},
              "split_batches": 0, "again": False, "scale": {"factor": 65536.0, "steps": 1}, "crc32": crc,
              "record": {"--lr": "0.1", "the rows": "1"}}
    seed("train_state", "plain", save(columns, {"eva_onnx_training": json.dumps(header)}))


def runs():
    """The states that `init` leaves when a row is at fault, and in blocks when the second one overflows."""
    node, eva = helper.make_node, os.environ["EVA_ONNX"]
    weights = [numpy_helper.from_array(np.eye(4, dtype=np.float32) * 2, f"fc{at}.weight") for at in range(2)]
    large = numpy_helper.from_array(np.float32(3e38), "large")
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 4])
    for name, overflow, options in (
        ("sketch", False, ["cpu", "--checkpoint-every", "1"]),
        ("outputs", False, ["cpu", "--checkpoint-every", "1", "--capture", "outputs"]),
        ("devices", False, ["cpu,cpu", "--checkpoint-every", "1"]),
        ("block", True, ["cpu", "--blocks", "2", "--spill", "s"]),
    ):
        nodes = [node("Gemm", ["x", "fc0.weight"], ["h"], "/fc0/Gemm", transB=1)]
        nodes += [node("Mul", ["h", "large"], ["i"], "m"), node("Mul", ["i", "large"], ["j"], "n")] if overflow else []
        nodes += [node("Gemm", ["j" if overflow else "h", "fc1.weight"], ["y"], "/fc1/Gemm", transB=1)]
        graph = helper.make_graph(nodes, "g", [value("x")], [value("y")], [*weights, *[large] * overflow])
        made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
        random, rows = np.random.default_rng(0), 70
        lines = [json.dumps({"x": random.normal(size=4).round(3).tolist()}) for _ in range(rows)]
        with tempfile.TemporaryDirectory() as folder:
            onnx.save(made, f"{folder}/m.onnx")
            # The rows of a second window are not read yet when the first one has run.
            lines += [] if overflow else ['{"x": "no"}']
            Path(folder, "rows.jsonl").write_text("\n".join(lines))
            run = [eva, "init", "m.onnx", "--data", "rows.jsonl", "--rank", "1", "--tau", "1", "--batch-size", "1",
                   "--keep-order", "--out", "out", "--device", *options]
            subprocess.run(run, cwd=folder, stderr=subprocess.DEVNULL)
            state = Path(folder, "s/eva-block-1") if overflow else Path(folder, "out.checkpoint")
            # The fuzz target adds the hash.
            seed("init_state", name, state.read_bytes()[:-32])


def main():
    shutil.rmtree(SEEDS, ignore_errors=True)
    models()
    summaries()
    tables()
    tokenizers()
    chats()
    settings()
    training()
    runs()
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
