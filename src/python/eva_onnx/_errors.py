"""Why a command failed."""

from __future__ import annotations


class EvaOnnxError(Exception):
    """A command failed; `hint` says what to do about it, if there is something."""

    hint: str | None

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        if hint is not None and hasattr(self, "add_note"):  # Python 3.11
            self.add_note(f"hint: {hint}")

    def __reduce__(self) -> tuple[type[EvaOnnxError], tuple[str, str | None]]:
        return type(self), (self.args[0], self.hint)


class InputError(EvaOnnxError):
    """The model, the data or the adapter is at fault."""


class UsageError(EvaOnnxError):
    """An option, the system or ONNX Runtime is at fault."""


class ChangedError(EvaOnnxError):
    """A file changed while it was read."""


class StoppedError(EvaOnnxError):
    """`on_progress` stopped the run before there was a result."""
