"""LoRA adapters initialised by EVA, from exported ONNX models and data, without PyTorch.

The functions are the commands of `eva-onnx`, and their options are those of the command line: `--batch-size 8` is
`batch_size=8`. docs/python.md has examples.
"""

from ._api import check, convert, init, inspect, merge, splice, train
from ._errors import ChangedError, EvaOnnxError, InputError, StoppedError, UsageError
from ._native import __version__
from ._results import Converted, Initialised, Module, Progress, Spliced, Trained, TrainProgress

__all__ = [
    "ChangedError",
    "Converted",
    "EvaOnnxError",
    "Initialised",
    "InputError",
    "Module",
    "Progress",
    "Spliced",
    "StoppedError",
    "TrainProgress",
    "Trained",
    "UsageError",
    "__version__",
    "check",
    "convert",
    "init",
    "inspect",
    "merge",
    "splice",
    "train",
]
