"""`make paper` on the example model: its starts, its pairs of seeds, and a page that says what the runs say."""

import os
import re
import sys

import numpy as np
import pytest
from conftest import GRAPHS, ROOT
from safetensors.numpy import load_file

sys.path[:0] = [str(ROOT / "benches/paper"), str(ROOT / "benches")]

import claims
import contents
import page
import starts
import study

SEEDS, STEPS, RANK = 2, 3, 4


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The program, and the figures of the four starts."""
    work = tmp_path_factory.mktemp("paper")
    lines = (ROOT / "fixtures/calibration.jsonl").read_text().splitlines(keepends=True)
    (work / "rows.jsonl").write_text("".join(lines[:24]))
    (work / "held-out.jsonl").write_text("".join(lines[24:28]))
    task = starts.Task(
        name="language",
        model=GRAPHS / "example/dynamo/model.onnx",
        rows=work / "rows.jsonl",
        held_out=work / "held-out.jsonl",
        rank=RANK,
        rate=1e-3,
        rates=[1e-3, 4e-3],
        steps=STEPS,
        batch_size=2,
        init_batches=4,
        max_length=48,
    )
    program = starts.Program(os.environ["EVA_ONNX"], "cpu", work)
    return program, study.run(program, task, SEEDS, say=lambda text: None)


def test_the_default_start_is_that_of_peft(ran):
    """kaiming_uniform_ with a = sqrt(5) is uniform in +-1/sqrt(in): of variance 1 / (3 in)."""
    folder = ran[0].work / "language/lora-0"
    tensors = load_file(folder / "adapter_model.safetensors")
    deviations = []
    for name, values in tensors.items():
        if ".lora_A." in name:
            bound = 1 / np.sqrt(values.shape[1])
            assert values.shape[0] == RANK and np.abs(values).max() <= bound
            deviations.append(values.std() / (bound / np.sqrt(3)))
        else:
            assert not values.any()
    # The deviation of n uniform values is off by about 1 / sqrt(5 n), here of 640 values and more, over 21 modules.
    assert abs(np.mean(deviations) - 1) < 0.02


def test_starts_of_a_seed_train_on_the_same_batches(ran):
    """B is zero at first, so the first loss is the model's own on the same rows."""
    methods = ran[1]["methods"]
    for seed in range(SEEDS):
        first = [methods[method]["runs"][seed]["loss"][0] for method in study.METHODS]
        np.testing.assert_allclose(first, first[0], rtol=1e-5)
    losses = [methods[study.LORA]["runs"][seed]["loss"][0] for seed in range(SEEDS)]
    assert losses[0] != losses[1]


def test_the_tuned_rate_is_the_best_of_those_tried(ran):
    found = ran[1]
    assert [rate for rate, _ in found["tuning"]] == [1e-3, 4e-3]
    assert found["methods"][study.TUNED]["rate"] == min(found["tuning"], key=lambda pair: pair[1])[0]


@pytest.mark.parametrize(
    ("held", "word"), [([True, True], "yes"), ([True, False], "not always"), ([False, False], "no")]
)
def test_a_claim_holds_for_every_seed_or_is_not_shown(held, word):
    assert claims.verdict(np.array(held)) == word


def test_the_page_has_the_figures_and_loads_nothing(ran):
    setup = {"quick": True, "commit": "c", "date": "d", "machine": "m", "device": "cpu", "seconds": {"language": 1.0}}
    made = contents.of({"setup": setup, "language": ran[1]})
    text, html = page.markdown(made), page.page(made)
    held_out = study.values(ran[1], study.RHO_2, "held-out loss")
    figure = f"{held_out.mean():.4f} ± {held_out.std(ddof=1):.4f}"
    assert figure in text and figure in html
    assert html.count("<svg") == 2 * (1 + len(study.METHODS)) and "nan" not in html
    assert not re.search(r"<script|src=|href=|url\(|@import", html)
