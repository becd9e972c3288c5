"""The page of a run in headless Chromium: it shows what eva.json says, and the browser has nothing to complain about."""

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from conftest import GRAPHS, ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--v=0"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")


class Page(HTMLParser):
    """The cards of the heat map as text, and the style that the browser applied to the body."""

    def __init__(self, text):
        super().__init__()
        self.cards, self.inside = [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "span" and ("class", "card") in attributes:
            self.cards.append("")
            self.inside = 1
        elif self.inside:
            self.inside += 1

    def handle_endtag(self, tag):
        self.inside = max(self.inside - 1, 0)

    def handle_data(self, text):
        if self.inside:
            self.cards[-1] += text + " "


def browser(tmp_path, page, *arguments):
    command = [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", *arguments, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    model, data = GRAPHS / "example/dynamo/model.onnx", ROOT / "fixtures/calibration.jsonl"
    command = [os.environ["EVA_ONNX"], "init", model, "--data", data, "--max-batches", "4", "--quiet"]
    subprocess.run([*command, "--out", folder / "adapter", "--report", folder / "p.html"], check=True)
    return folder / "p.html", json.loads((folder / "adapter/eva.json").read_text())


def test_figures_equal_those_of_eva_json(made, tmp_path):
    page, report = made
    cards = Page(browser(tmp_path, page, "--dump-dom").stdout).cards
    assert len(cards) == len(report["layers"])
    for card, layer in zip(cards, report["layers"]):
        name, rank, most, explained = re.match(r"(\S+) rank (\d+) of at most (\d+), explains ([\d.]+) %", card).groups()
        assert (name, int(rank), int(most)) == (layer["module"], layer["rank"], report["rank"] * report["rho"])
        assert explained == f"{100 * sum(layer['explained_variance_ratio'][:layer['rank']]):.1f}"


@pytest.mark.parametrize("width", [375, 800, 1280])
def test_the_browser_does_not_complain(made, tmp_path, width):
    picture = tmp_path / "page.png"
    page = browser(tmp_path, made[0], f"--window-size={width},1500", f"--screenshot={picture}")
    assert "CONSOLE" not in page.stderr and "Content Security Policy" not in page.stderr, page.stderr
    assert picture.stat().st_size > 10_000


def test_a_wrong_hash_is_a_complaint(made, tmp_path):
    """That the test above can fail."""
    page = tmp_path / "wrong.html"
    page.write_text(made[0].read_text().replace("sha256-", "sha256-A"))
    assert "CONSOLE" in browser(tmp_path, page, "--dump-dom").stderr
