"""What the functions return: dataclasses that say what the documents of the command line say."""

import dataclasses
import gzip
import json
import shutil

import eva_onnx
import pytest
from conftest import MODEL, ROOT, program


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A model that computes query, key and value in one product."""
    source, folder = ROOT / "graphs/exports/genai-llama/fp32", tmp_path_factory.mktemp("packed")
    for name in ("model.onnx.data", "genai_config.json"):
        shutil.copy(source / name, folder)
    (folder / "model.onnx").write_bytes(gzip.decompress((source / "model.onnx.gz").read_bytes()))
    return folder / "model.onnx"


def document(*words):
    done = program(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def plain(result):
    """A dataclass as JSON has it."""
    return json.loads(json.dumps(dataclasses.asdict(result)))


@pytest.mark.parametrize("name", ["plain", "packed"])
def test_an_inspection_is_the_document_of_inspect(name, packed):
    model = packed if name == "packed" else MODEL
    found = eva_onnx.inspect(model, target_modules=["q_proj", "up_proj"])
    said = document("inspect", model, "--target-modules", "q_proj,up_proj")
    for layer in said["linears"]:
        for module in layer["modules"]:
            module["name"] = module.pop("module")
    said["layers"] = said.pop("linears")
    assert plain(found) == said
    targeted = [layer for layer in found.layers if layer.targeted]
    assert targeted and all(layer.group is not None for layer in targeted)
    assert all(isinstance(size, str) for size in found.model.inputs[0].shape)


def test_modules_of_a_packed_layer_have_their_columns(packed):
    layers = [layer for layer in eva_onnx.inspect(packed).layers if len(layer.modules) > 1]
    assert layers
    for layer in layers:
        ends = [module.columns for module in layer.modules]
        assert ends[0][0] == 0 and ends[-1][1] == layer.out_features
        assert all(before[1] == after[0] for before, after in zip(ends, ends[1:]))


def test_a_check_is_the_document_of_check(adapter):
    checked, said = eva_onnx.check(MODEL, adapter), document("check", MODEL, adapter)
    for form in said["forms"]:
        form["form"] = form.pop("as")
    assert plain(checked) == said
    assert checked.fits and checked.ranks[0] <= checked.ranks[1] and not checked.problems
    assert [form.form for form in checked.forms] == ["trainable", "adapter-inputs", "merged"]


def test_an_adapter_that_does_not_fit_is_said_not_to(packed, adapter):
    checked = eva_onnx.check(packed, adapter)
    assert not checked.fits and checked.problems and not checked.forms
    with pytest.raises(dataclasses.FrozenInstanceError):
        checked.fits = True


def test_every_result_is_a_dataclass(tmp_path, rows, adapter):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = eva_onnx.init(MODEL, data, rank=4, device="cpu", summary=tmp_path / "summary.safetensors", out=tmp_path / "run")
    results = [
        run,
        *run.modules,
        eva_onnx.merge([tmp_path / "summary.safetensors"]),
        eva_onnx.train(MODEL, rows, adapter=adapter, device="cpu", steps=1, eval=rows[:4]),
        eva_onnx.splice(MODEL, adapter, tmp_path / "spliced"),
        eva_onnx.convert(adapter, tmp_path / "a.onnx_adapter"),
        eva_onnx.inspect(MODEL),
        eva_onnx.check(MODEL, adapter),
    ]
    for result in results:
        assert dataclasses.is_dataclass(result) and type(result).__name__ in eva_onnx.__all__
