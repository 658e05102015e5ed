"""Commands that do what no command may do, each of which the harness must find."""

import ctypes
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from fuzz.kind import Kind
from fuzz.mutators import damage_bytes
from fuzz.verdict import SECRET
from i3dzoo.errors import FormatError

_SENTENCE = "x: expected a number, found a letter; correct the file"


def accept(_: Path) -> None:
    """Do nothing wrong."""
    print("done")


def refuse(_: Path) -> None:
    """Refuse the input by one sentence."""
    raise FormatError(_SENTENCE)


def crash(_: Path) -> None:
    """Read memory that is not there."""
    ctypes.string_at(0)


def hang(_: Path) -> None:
    """Wait for something that never comes."""
    time.sleep(600)


def spin(_: Path) -> None:
    """Never finish."""
    while True:
        pass


def refuse_late(_: Path) -> None:
    """Refuse the input after a second of work."""
    end = time.process_time() + 1
    while time.process_time() < end:
        pass
    raise FormatError(_SENTENCE)


def use_memory(_: Path) -> None:
    """Use much memory, and succeed."""
    bytearray(600 << 20)[:: 1 << 12] = b"x" * (600 << 8)


def ask_for_memory(_: Path) -> None:
    """Ask for more memory than there is, and say so."""
    try:
        bytearray(1 << 45)
    except MemoryError:
        raise FormatError("out of memory: use smaller inputs or batches") from None


def write_elsewhere(_: Path) -> None:
    """Create a file outside of the output folder."""
    Path("../../escaped.txt").write_text("x")


def overwrite(_: Path) -> None:
    """Change a file of the user's."""
    Path("../canary/notes.txt").write_text("x")


def remove(_: Path) -> None:
    """Remove a file of the user's."""
    Path("../canary/below/notes.txt").unlink()


def change_input(path: Path) -> None:
    """Change the input."""
    path.write_bytes(b"x")


def leave_output(_: Path) -> None:
    """Leave half of the output."""
    Path("out/half.safetensors").write_bytes(b"x")
    raise FormatError(_SENTENCE)


def leave_temporary(_: Path) -> None:
    """Leave a temporary file."""
    Path(os.environ["TMPDIR"], "x.bin").write_bytes(b"x")


def leave_part(_: Path) -> None:
    """Leave the temporary file of an output."""
    Path("out/.y.safetensors.abc.part").write_bytes(b"x")


def print_traceback(_: Path) -> None:
    """Print a traceback."""
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        traceback.print_exc()
    raise FormatError(_SENTENCE)


def fail_unforeseen(_: Path) -> None:
    """Fail as nobody foresaw; the last net catches it."""
    raise ZeroDivisionError


def say_nothing(_: Path) -> None:
    """Refuse the input without a reason."""
    sys.exit(1)


def say_it_twice(_: Path) -> None:
    """Refuse the input twice."""
    print(f"i3dzoo: {_SENTENCE}", file=sys.stderr)
    raise FormatError(_SENTENCE)


def say_too_much(_: Path) -> None:
    """Print the whole input."""
    print("i3dzoo: " + "x" * 10_000, file=sys.stderr)
    sys.exit(1)


def control_the_terminal(_: Path) -> None:
    """Print a control character of the input."""
    print("\x1b[2J")


def print_the_token(_: Path) -> None:
    """Print the token."""
    raise FormatError(f"the header Bearer {SECRET} is wrong; log in again")


def warn(_: Path) -> None:
    """Print a warning of a library."""
    warnings.warn("divide by zero", RuntimeWarning, stacklevel=1)


def _build(folder: Path, _: object) -> None:
    (folder / "x").write_bytes(bytes(100))


def _kind(function: Callable[[Path], None]) -> Kind:
    command = (f"fuzz.bad_commands:{function.__name__}", "x")
    return Kind(function.__name__, _build, {"x": damage_bytes}, command, code=function is refuse)


GOOD = {"accept": "accepted", "refuse": "refused"}
BAD = {
    "crash": "crash: signal 11",
    "hang": "hang",
    "spin": "crash: signal|time|hang",
    "refuse_late": "time: ",
    "use_memory": r"memory: \d+ MB",
    "ask_for_memory": "memory: .*out of memory",
    "write_elsewhere": "outside of the output folder: escaped.txt",
    "overwrite": "outside of the output folder: .*notes.txt",
    "remove": "outside of the output folder: .*notes.txt",
    "change_input": "outside of the output folder: box/work/x",
    "leave_output": "left behind: out/half.safetensors",
    "leave_temporary": "left behind: tmp/x.bin",
    "leave_part": "left behind: out/.y.safetensors.abc.part",
    "print_traceback": "traceback: .*expected a number",
    "fail_unforeseen": "exit code 70",
    "say_nothing": "0 messages",
    "say_it_twice": "2 messages",
    "say_too_much": "message of 1000. characters",
    "control_the_terminal": "control character",
    "print_the_token": "the token is printed",
    "warn": "warning of a library: .*divide by zero",
}
"""The functions of this module, and what the harness says of them."""

KINDS = {name: _kind(globals()[name]) for name in (*GOOD, *BAD)}
