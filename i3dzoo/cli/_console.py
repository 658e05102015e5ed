"""Options that commands share, and the two outputs: remarks on stderr, results on stdout."""

import contextlib
import functools
import io
import json
import logging
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from i3dzoo.cli._parameters import DEVICE
from i3dzoo.files import TEXT_BYTES, decode_text, read_text, split_lines
from i3dzoo.text import message, printable, shorten

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

device_option = click.option(
    "--device",
    type=DEVICE,
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Where PyTorch runs: auto, cpu, cuda, cuda:1 or mps; auto is cuda if there is a GPU.",
)

engine_option = click.option(
    "--engine",
    type=click.Choice(["auto", "torch", "fused", "onnxruntime", "openvino", "tensorrt"]),
    default="auto",
    show_default=True,
    help="Inference engine. auto depends on the file and the device: for a checkpoint, fused on "
    "an H100, PyTorch on other GPUs, and the fastest installed engine on a CPU.",
)

precision_option = click.option(
    "--precision",
    type=click.Choice(["fp32", "tf32", "bf16", "fp16"]),
    help="Precision of the computation.  [default: fp16 with fused; otherwise the checkpoint's "
    "on a GPU, and fp32 on a CPU]",
)

decoder_option = click.option(
    "--decoder",
    type=click.Choice(["auto", "cpu", "nvdec"]),
    default="auto",
    show_default=True,
    help="What decodes video files: nvdec also uses the decoder of an NVIDIA GPU, for the codecs "
    "that it decodes to the same pixels. It helps where there are few cores, and does not notice "
    "damage within a frame. auto is cpu.",
)

_KEY = click.option(
    "--key",
    metavar="NAME",
    help="The network to read from a file with several, such as state_dict_ema; the same as "
    "FILE#NAME.",
)


def key_option(argument: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds --key to a command: it completes an argument to FILE#NAME."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @_KEY
        @functools.wraps(command)
        def with_key(key: str | None, **values: Any) -> Any:
            if key is not None:
                files = values[argument]
                named = [f"{file}#{key}" for file in (files if type(files) is tuple else [files])]
                values[argument] = tuple(named) if type(files) is tuple else named[0]
            return command(**values)

        return with_key

    return decorate


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on standard output."
)


class _Output:
    """What the options of the command that runs say about its output."""

    quiet = False


def set_quiet(quiet: bool) -> None:
    """Leave out remarks and progress, or not."""
    _Output.quiet = quiet


def is_quiet() -> bool:
    """Whether remarks and progress are left out."""
    return _Output.quiet


def quiet_option() -> click.Option:
    """Return the option --quiet, which every command has."""
    return click.Option(
        ["-q", "--quiet"],
        is_flag=True,
        expose_value=False,
        callback=lambda _context, _option, value: set_quiet(value),
        help="Print only the result and errors: no remarks, no progress.",
    )


class _Remarks(logging.Handler):
    """Print the warnings of the library as remarks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one warning."""
        say(record.getMessage())


logging.getLogger("i3dzoo").addHandler(_Remarks())


class UnwritableOutputError(Exception):
    """Standard output cannot be written; the cause is an OSError."""


def use_any_encoding() -> None:
    """Escape the characters that the encoding of an output does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


ERROR: Final = "i3dzoo: "
"""What errors begin with."""


def say(text: str = "", *, error: bool = False) -> None:
    """Print a remark on standard error; with --quiet, only if it is an error."""
    shown = error or not is_quiet() or text.startswith(ERROR)
    if sys.stderr is not None and shown:
        with contextlib.suppress(OSError):  # a result does not depend on the remarks
            print("\n".join(map(message, text.split("\n"))), file=sys.stderr, flush=True)


def show(result: object = "") -> None:
    """Print a part of the result on standard output."""
    _write(f"{printable(str(result))}\n")


def _write(text: str) -> None:
    if sys.stdout is not None:
        try:
            print(text, end="", flush=True)
        except OSError as error:
            raise UnwritableOutputError from error


def cell(text: str) -> "Text":
    """Return the text of a cell of a table: one printable line."""
    from rich.text import Text

    return Text(printable(" ".join(shorten(text, 200).split())))


def show_table(table: "Table", title: str = "", *, on_stderr: bool = False) -> None:
    """Print a table on standard output, or as a remark; its texts are of `cell`."""
    from rich.console import Console
    from rich.text import Text

    # rich itself would end the process if a pipe is closed
    rendered = io.StringIO()
    terminal = sys.stdout is not None and sys.stdout.isatty()
    console = Console(
        file=rendered,
        force_terminal=terminal,
        width=None if terminal else 200,  # a pipe has no width, and no cell may be cut
        highlight=False,
        markup=False,
        emoji=False,
    )
    table.collapse_padding = console.width < 100
    if title:
        console.print(Text(printable(title), style="bold"), soft_wrap=True)
    console.print(table)
    if on_stderr:
        say(rendered.getvalue().rstrip("\n"))
    else:
        _write(rendered.getvalue())


def read_list(path: str) -> tuple[str, ...]:
    """Return the lines of a text file that names inputs; `-` is standard input."""
    if path != "-":
        text = read_text(path)
    elif sys.stdin is None:
        text = ""
    else:
        text = decode_text(sys.stdin.buffer.read(TEXT_BYTES + 1), "standard input")
    return tuple(filter(None, split_lines(text)))


def suggest(*commands: str) -> None:
    """Print commands that the user may want to run next, on standard error."""
    if len(commands) == 1:
        say(f"Next: {commands[0]}")
        return
    say("\nNext:")
    for command in commands:
        say(f"  {command}")


def run_command(model: object, num_classes: int) -> str:
    """Return the command that runs a model: predict, or features for one without a head."""
    name = shlex.quote(str(model))
    if num_classes:
        return f"i3dzoo predict VIDEO --model {name}"
    return f"i3dzoo features VIDEO --model {name} -o FOLDER"


def print_json(document: Any) -> None:
    """Print the JSON document of a command on standard output, in ASCII.

    JSON has no infinity and no NaN: both become null.
    """
    plain = json.loads(json.dumps(document), parse_constant=lambda _: None)
    show(json.dumps(plain, indent=2, allow_nan=False).replace("\x7f", "\\u007f"))
