"""The program `eva-onnx`."""

import signal
import sys

from . import _api, _native  # noqa: F401 - the first names ONNX Runtime


def main() -> None:
    """Runs the command line of this process."""
    # Ctrl-C is the program's own matter, unless it was ignored from the start.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(_native.main(["eva-onnx", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
