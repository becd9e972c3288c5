"""The commands as functions."""

from __future__ import annotations

import importlib.util
import json
import numbers
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import _found, _native, _results
from ._errors import UsageError
from ._found import Checked, Inspection
from ._results import Converted, Initialised, Progress, Spliced, Trained, TrainProgress

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._options import (
        CheckOptions,
        ConvertOptions,
        InitOptions,
        InspectOptions,
        MergeOptions,
        SpliceOptions,
        TrainOptions,
    )

Path = str | os.PathLike[str]
Data = Path | Sequence[Path] | Iterable[Mapping[str, Any]]


def init(
    model: Path,
    data: Data,
    *,
    on_progress: Callable[[Progress], bool | None] | None = None,
    **options: Unpack[InitOptions],
) -> Initialised:
    """Runs data through a model and makes an adapter initialised by EVA.

    `data` is a file or folder, a list of them, or an iterable of rows: dicts of text, token ids or arrays, such as a
    Dataset of Hugging Face. With `out`, the adapter is written there too. `on_progress` is called after each batch; if
    it returns False, the adapter is made of the batches so far. Ctrl-C raises KeyboardInterrupt, and nothing is written.
    """
    given, rows = _data(data)
    observe = on_progress and (lambda *state: on_progress(Progress(*state)))
    return _results.initialised(_native.init(os.fspath(model), rows, given + _options(options), observe))


def train(
    model: Path,
    data: Data,
    *,
    eval: Data | None = None,
    on_progress: Callable[[TrainProgress], bool | None] | None = None,
    **options: Unpack[TrainOptions],
) -> Trained:
    """Trains an adapter inside a model, from the folder `adapter`, or from one that EVA initialises on the same rows.

    `data` and `eval` are as in `init`; an iterator is read into a list, as each epoch reads all rows. With `out`, the
    adapter is written there too. `on_progress` is called after each step; if it returns False, the training ends.
    Ctrl-C raises KeyboardInterrupt: no adapter is written, but with `out` a checkpoint, from which `resume=True` goes on.
    """
    given, rows = _data(data, again=True)
    eval_rows = None
    if eval is not None:
        files, eval_rows = _data(eval, again=True)
        given += [("eval", values) for _, values in files if eval_rows is None]
    observe = on_progress and (lambda *state: on_progress(TrainProgress(*state)))
    return _results.trained(_native.train(os.fspath(model), rows, eval_rows, given + _options(options), observe))


def merge(files: Path | Iterable[Path], **options: Unpack[MergeOptions]) -> Initialised:
    """Makes an adapter of what several runs of `init` with `summary` know, without running the model."""
    paths = [files] if isinstance(files, (str, os.PathLike)) else files
    return _results.initialised(_native.merge([os.fspath(path) for path in paths], _options(options)))


def splice(model: Path, adapter: Path, out: Path, **options: Unpack[SpliceOptions]) -> Spliced:
    """Puts an adapter into a model: `as_` is `trainable`, `adapter-inputs` or `merged`."""
    given = [("out", [os.fspath(out)]), *_options(options)]
    return Spliced(**json.loads(_native.splice(os.fspath(model), os.fspath(adapter), given)))


def convert(input: Path, output: Path, **options: Unpack[ConvertOptions]) -> Converted:
    """Writes an adapter in another form: an .onnx_adapter or .gguf file by the name of `output`, else a folder."""
    return Converted(**json.loads(_native.convert(os.fspath(input), os.fspath(output), _options(options))))


def inspect(model: Path, **options: Unpack[InspectOptions]) -> Inspection:
    """Lists the linear layers of a model, as `eva-onnx inspect --json` does."""
    return _found.inspection(_native.inspect(os.fspath(model), _options(options)))


def check(model: Path, adapter: Path, **options: Unpack[CheckOptions]) -> Checked:
    """Says whether an adapter fits a model, as `eva-onnx check --json` does. One that does not is no error."""
    return _found.checked(_native.check(os.fspath(model), os.fspath(adapter), _options(options)))


def _data(data: Data, *, again: bool = False) -> tuple[list[tuple[str, list[str]]], Iterable[Any] | None]:
    """Files as an option, or rows."""
    if isinstance(data, (str, os.PathLike)):
        return [("data", [os.fspath(data)])], None
    if isinstance(data, Mapping):
        keys = ", ".join(map(repr, list(data)[:4]))
        raise UsageError(f"`data` is one mapping, with {keys}", "give one of its parts, such as data['train']")
    if isinstance(data, Sequence) and all(isinstance(path, (str, os.PathLike)) for path in data):
        return [("data", [os.fspath(path) for path in data])], None
    if not isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
        raise UsageError(f"`data` is a {type(data).__name__}", "give files, or an iterable of dicts")
    rows = list(data) if again and isinstance(data, Iterator) else data
    return [("data", ["data"])], rows


def _options(options: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Options with their values as text, without those that are None."""
    return [(name, _texts(name, value)) for name, value in options.items() if value is not None]


def _texts(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, (str, os.PathLike)):
        return [os.fspath(value)]
    if isinstance(value, numbers.Number):
        return [str(value)]
    if isinstance(value, Iterable):
        return [text for item in value for text in _texts(name, item)]
    raise UsageError(f"`{name}` is a {type(value).__name__}", "give text, a number, True or False, or a list of these")


def _find_onnxruntime() -> None:
    """Names the ONNX Runtime of this Python, which need not be the one on the PATH."""
    found = importlib.util.find_spec("onnxruntime")
    if found and found.submodule_search_locations:
        _native.use_onnxruntime(found.submodule_search_locations[0])


_find_onnxruntime()
