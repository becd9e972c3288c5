"""LoRA adapters initialised by EVA, from exported ONNX models and data, without PyTorch.

The functions are the commands of `eva-onnx`, and their options are those of the command line: `--batch-size 8` is
`batch_size=8`. docs/python.md has examples.
"""

from ._api import check, convert, init, inspect, merge, splice, train
from ._errors import ChangedError, EvaOnnxError, InputError, StoppedError, UsageError
from ._found import Checked, FormChecked, Inspection, LayerInfo, ModelInfo, ModuleInfo, SkippedNode, TensorInfo
from ._native import __version__
from ._results import Converted, Evaluation, Initialised, Module, Progress, Spliced, Trained, TrainProgress

__all__ = [
    "ChangedError",
    "Checked",
    "Converted",
    "EvaOnnxError",
    "Evaluation",
    "FormChecked",
    "Initialised",
    "InputError",
    "Inspection",
    "LayerInfo",
    "ModelInfo",
    "Module",
    "ModuleInfo",
    "Progress",
    "SkippedNode",
    "Spliced",
    "StoppedError",
    "TensorInfo",
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
