"""The wheel, installed where nothing else is: the program, its manual pages and its completions."""

import subprocess
import sys
import venv
import zipfile

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this build: that of pip, without compiling in release mode again."""
    out = tmp_path_factory.mktemp("dist")
    maturin = [sys.executable, "-m", "maturin", "build", "--profile", "dev", "--locked", "--out", out]
    subprocess.run(maturin, cwd=ROOT, check=True)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def prefix(wheel, tmp_path_factory):
    """A virtual environment with the wheel alone; numpy and ONNX Runtime are not needed for the program's help."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True)
    return folder


def test_manual_pages_and_completions_are_where_systems_look(prefix):
    share = prefix / "share"
    pages = {path.name for path in (share / "man/man1").glob("eva-onnx*.1")}
    commands = {"init", "train", "merge", "splice", "convert", "inspect", "check", "report", "doctor"}
    assert {"eva-onnx.1", *(f"eva-onnx-{command}.1" for command in commands)} <= pages
    for path in ("bash-completion/completions/eva-onnx", "zsh/site-functions/_eva-onnx", "fish/vendor_completions.d/eva-onnx.fish"):
        assert "eva-onnx" in (share / path).read_text()
    page = (share / "man/man1/eva-onnx-init.1").read_text()
    assert page.lstrip().startswith((".ie", ".TH")) and "\\-\\-rho" in page


def test_completions_complete_in_bash(prefix):
    script = prefix / "share/bash-completion/completions/eva-onnx"
    # Bash calls the function that the script has registered for the program.
    function = "$(complete -p eva-onnx | sed 's/.*-F \\([^ ]*\\) .*/\\1/')"
    words = "COMP_WORDS=(eva-onnx ins); COMP_CWORD=1"
    asked = f"source {script}; {words}; {function} eva-onnx ins eva-onnx; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True)
    assert done.stdout.split() == ["inspect"], done.stderr


def test_the_wheel_has_what_a_package_needs(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {"eva_onnx/py.typed", "eva_onnx/_native.pyi", "eva_onnx/_options.pyi"} <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE-MIT") for name in names)
    assert not any(name.startswith(("tests/", "graphs/", "fixtures/")) for name in names)
