"""The functions, beside the command line and the readers of what they write."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import eva_onnx
import numpy as np
import onnx
import peft
import pytest
import transformers
from conftest import DATA, EXAMPLE, MODEL, ROOT, program
from safetensors.numpy import load_file

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def written(folder):
    return [(folder / name).read_bytes() for name in (WEIGHTS, CONFIG)]


@pytest.mark.parametrize("options", [{}, {"rank": 4, "shuffle": True, "batch_size": 3}, {"target_modules": ["q_proj"]}])
def test_an_iterable_gives_the_bytes_of_the_command_line(tmp_path, rows, data, options):
    words = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        words += [flag] if value is True else [flag, ",".join(value) if isinstance(value, list) else str(value)]
    done = program("init", MODEL, "--data", data, "--device", "cpu", "--out", tmp_path / "command", *words)
    assert done.returncode == 0, done.stderr
    eva_onnx.init(MODEL, data, device="cpu", out=tmp_path / "path", **options)
    eva_onnx.init(MODEL, (row for row in rows), device="cpu", out=tmp_path / "rows", **options)
    late = eva_onnx.init(str(MODEL), [str(data)], device="cpu", **options)
    late.save(tmp_path / "late")
    for folder in ("path", "rows", "late"):
        assert written(tmp_path / folder) == written(tmp_path / "command"), folder


def test_a_dataset_of_hugging_face_is_an_iterable(tmp_path, rows, data):
    datasets = pytest.importorskip("datasets")
    eva_onnx.init(MODEL, datasets.Dataset.from_list(rows), device="cpu", out=tmp_path / "dataset")
    eva_onnx.init(MODEL, data, device="cpu", out=tmp_path / "path")
    assert written(tmp_path / "dataset") == written(tmp_path / "path")
    with pytest.raises(eva_onnx.UsageError, match="one mapping, with 'train'"):
        eva_onnx.init(MODEL, datasets.DatasetDict(train=datasets.Dataset.from_list(rows)))


def test_the_result_is_what_peft_loads(tmp_path, rows):
    seen = []
    run = eva_onnx.init(MODEL, rows, rank=4, device="cpu", out=tmp_path / "adapter", on_progress=seen.append)
    tensors = load_file(tmp_path / "adapter" / WEIGHTS)
    for module in run.modules:
        assert (module.A.shape, module.B.shape) == ((module.rank, module.in_features), (module.out_features, module.rank))
        assert module.A.dtype == np.float32 and not module.B.any()
        assert 0 < module.explained_variance <= 1 and module.spectrum.shape == module.similarity.shape == (8,)
        np.testing.assert_array_equal(module.A, tensors[f"base_model.model.{module.name}.lora_A.weight"])
    assert sum(module.rank for module in run.modules) == run.ranks_total == run.budget
    assert [state.batches for state in seen] == list(range(run.batches + 1))
    assert seen[-1].tokens_seen == run.tokens_seen and seen[-1].planned is not None
    base = transformers.AutoModelForCausalLM.from_pretrained(ROOT / "graphs/example/checkpoint")
    model = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    layer = model.get_submodule(f"base_model.model.{run.modules[0].name}")
    np.testing.assert_array_equal(layer.lora_A["default"].weight.detach().numpy(), run.modules[0].A)


def test_arrays_are_token_ids(rows, tmp_path):
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(EXAMPLE / "tokenizer.json"))
    ids = [tokenizer.encode(row["question"]).ids for row in rows]
    kinds = [list, np.array, lambda row: np.array(row, np.int32), tuple]
    folders = [tmp_path / str(number) for number in range(len(kinds))]
    for kind, folder in zip(kinds, folders):
        eva_onnx.init(MODEL, [{"input_ids": kind(row)} for row in ids], device="cpu", out=folder)
    assert all(written(folder) == written(folders[0]) for folder in folders)


def test_on_progress_ends_a_run(rows):
    run = eva_onnx.init(MODEL, rows, device="cpu", on_progress=lambda state: state.batches < 2)
    assert (run.batches, run.stopped_by) == (2, "interrupted")
    with pytest.raises(eva_onnx.StoppedError):
        eva_onnx.init(MODEL, rows, device="cpu", on_progress=lambda state: False)


def test_exceptions_of_callbacks_and_rows_come_out(tmp_path, rows):
    def broken():
        yield from rows[:9]
        raise ZeroDivisionError("of the rows")

    def callback(state):
        raise KeyError(state.batches)

    with pytest.raises(ZeroDivisionError, match="of the rows"):
        eva_onnx.init(MODEL, broken(), device="cpu", out=tmp_path / "rows", on_bad_row="skip")
    with pytest.raises(KeyError):
        eva_onnx.init(MODEL, rows, device="cpu", out=tmp_path / "callback", on_progress=callback)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("call", "error", "message", "hint"),
    [
        (lambda: eva_onnx.init(MODEL, DATA, rnak=8), "UsageError", r"init\(\) has no option `rnak`", "did you mean `rank`"),
        (lambda: eva_onnx.init(MODEL, DATA, json=True), "UsageError", "no option `json`", None),
        (lambda: eva_onnx.init(MODEL, DATA, rank=0), "UsageError", "invalid value '0' for '--rank", None),
        (lambda: eva_onnx.init(MODEL, DATA, shuffle=2), "UsageError", "`shuffle` takes true or false", None),
        (lambda: eva_onnx.init(MODEL, DATA, batch_size=2, batch_tokens=9), "UsageError", "cannot be used with", None),
        (lambda: eva_onnx.init(MODEL, []), "UsageError", "required arguments", None),
        (lambda: eva_onnx.init(MODEL, [{"body": 1}]), "InputError", "`data` row 1: no text or token ids", "--text-field"),
        (lambda: eva_onnx.init(MODEL, [3]), "InputError", "`data` row 1: expected an object", "a row looks like"),
        (lambda: eva_onnx.init(MODEL, [{"text": object()}]), "InputError", "`data` row 1.*type `object`", None),
        (lambda: eva_onnx.init("no.onnx", DATA), "InputError", "no.onnx", None),
        (lambda: eva_onnx.init(MODEL, DATA, report="a.html"), "UsageError", "`report` needs `out`", None),
        (lambda: eva_onnx.train(MODEL, DATA, resume=True), "UsageError", "need `out`", None),
        (lambda: eva_onnx.init(MODEL, 3), "UsageError", "`data` is a int", "iterable of dicts"),
    ],
)
def test_errors_have_a_kind_and_a_hint(call, error, message, hint):
    with pytest.raises(getattr(eva_onnx, error), match=message) as raised:
        call()
    assert isinstance(raised.value, eva_onnx.EvaOnnxError)
    assert hint is None or hint in raised.value.hint
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), again.hint) == (str(raised.value), raised.value.hint)


ENDLESS = """
import itertools, signal, sys, threading, time
import eva_onnx
# Background jobs of a shell are started with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
rows = ({"text": f"question {number} of many"} for number in itertools.count())
ticks = []
ticking = threading.Thread(target=lambda: [ticks.append(time.sleep(0.01)) for _ in itertools.count()], daemon=True)
ticking.start()
def seen(state):
    if state.batches == 3:
        assert len(ticks) > 3, "other threads run meanwhile"
        print("ready", flush=True)
try:
    eva_onnx.COMMAND(sys.argv[1], rows, tau=1, device="cpu", out=sys.argv[2], on_progress=seen)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_control_c_is_a_keyboard_interrupt(tmp_path):
    script = [sys.executable, "-c", ENDLESS.replace("COMMAND", "init"), MODEL, tmp_path / "adapter"]
    running = subprocess.Popen(script, stdout=subprocess.PIPE, text=True)
    assert running.stdout.readline() == "ready\n"
    running.send_signal(signal.SIGINT)
    begun = time.monotonic()
    assert running.stdout.readline() == "interrupted\n"
    assert running.wait(20) == 0 and time.monotonic() - begun < 20
    assert not os.listdir(tmp_path)


def test_splice_and_convert(tmp_path, adapter):
    spliced = eva_onnx.splice(MODEL, adapter, tmp_path / "served", as_="adapter-inputs")
    names = [value.name for value in onnx.load(tmp_path / "served/model.onnx").graph.input]
    assert sum("lora" in name for name in names) == 2 * spliced.modules
    converted = eva_onnx.convert(adapter, tmp_path / "a.onnx_adapter")
    assert converted.modules == spliced.modules and (tmp_path / "a.onnx_adapter").stat().st_size > 0
    with pytest.raises(eva_onnx.UsageError, match="exists"):
        eva_onnx.convert(adapter, tmp_path / "a.onnx_adapter")


def test_merge_is_the_run_over_all_rows(tmp_path, rows, data):
    for part in range(2):
        eva_onnx.init(MODEL, data, shard=f"{part}/2", summary=tmp_path / f"{part}.safetensors", device="cpu")
    files = [tmp_path / f"{part}.safetensors" for part in range(2)]
    merged = eva_onnx.merge(files, rank=4, out=tmp_path / "merged", report=tmp_path / "page.html")
    assert merged.tokens_seen == sum(part["tokens_seen"] for part in merged.report["parts"])
    assert (tmp_path / "merged" / WEIGHTS).exists() and "<svg" in (tmp_path / "page.html").read_text()


def test_training_lowers_the_loss_as_on_the_command_line(tmp_path, rows, data, adapter):
    options = {"adapter": adapter, "device": "cpu", "steps": 4, "lr": 1e-3}
    seen = []
    trained = eva_onnx.train(MODEL, iter(rows), eval=rows[:8], on_progress=seen.append, **options)
    trained.save(tmp_path / "python")
    words = ["--adapter", adapter, "--device", "cpu", "--steps", "4", "--lr", "1e-3"]
    done = program("train", MODEL, "--data", data, "--out", tmp_path / "command", *words)
    assert done.returncode == 0, done.stderr
    assert written(tmp_path / "python") == written(tmp_path / "command")
    assert len(trained.losses) == trained.planned == 4 and trained.losses[-1] < trained.losses[0]
    steps = json.loads((tmp_path / "command/train.json").read_text())["steps"]
    for values, key in ((trained.losses, "loss"), (trained.norms, "norm"), (trained.rates, "rate")):
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, [step[key] for step in steps])
    assert [state.steps for state in seen] == [0, 1, 2, 3] or [state.steps for state in seen] == [1, 2, 3]
    assert trained.evaluations[0].loss > 0 and trained.modules[0].B.any() and trained.saved == {}


def test_the_program_is_the_command_line(tmp_path):
    version = program("--version")
    assert version.stdout == f"eva-onnx {eva_onnx.__version__}\n" and version.returncode == 0
    refused = program("init", "no.onnx", "--data", "no.jsonl")
    assert refused.returncode == 1 and "hint" not in refused.stdout
    doctor = program("doctor", env={**os.environ, "VIRTUAL_ENV": "", "PATH": ""})
    assert doctor.returncode == 0 and "by the running Python" in doctor.stdout
