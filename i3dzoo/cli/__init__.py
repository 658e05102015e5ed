"""The command line: one small file per command. Only this folder prints and exits.

The module of a command is imported when the command runs, so `i3dzoo --help` is instant.
"""

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import click

from i3dzoo.cli._completion import VARIABLE, answer_shell, completion_option
from i3dzoo.cli._console import quiet_option, set_quiet, use_any_encoding
from i3dzoo.cli._exit import run
from i3dzoo.version import __version__

__all__ = ["main"]

COMMANDS = {
    "list": "List the published checkpoints.",
    "info": "Show the details of a zoo model, a file or a Hub repository.",
    "pull": "Download a published checkpoint, verify every tensor, cache it.",
    "identify": "Detect the layout of a file, and which published checkpoint it is.",
    "convert": "Convert a checkpoint from any layout to any other.",
    "inflate": "Inflate a 2D Inception-v1 (GoogLeNet) to I3D.",
    "deflate": "Sum the kernels of I3D over time, which gives a 2D Inception-v1.",
    "verify": "Check a checkpoint: structure, numbers, checksums, identity.",
    "push": "Push a checkpoint to the Hugging Face Hub, with a model card.",
    "predict": "Classify the action in videos.",
    "features": "Extract features of videos: 1024 numbers per window, or any layer.",
    "fvd": "Compute the Fréchet Video Distance of two sets of videos.",
    "finetune": "Fine-tune on HMDB51, UCF101 or your own dataset, or with a TAO spec.",
    "evaluate": "Evaluate a checkpoint on a test split, with the published protocols.",
    "report": "Write the report of a training run: one HTML file.",
    "prepare": "Prepare HMDB51, UCF101 or generated clips for training.",
    "export": "Export to ONNX, TensorRT, TAO, TorchScript or torch.export.",
    "tao": "Run the commands of NVIDIA TAO's launcher.",
    "bench": "Benchmark a model on each inference engine.",
    "app": "Open a local page to drop videos on.",
    "layouts": "Show, copy and check the layouts of checkpoints.",
    "presets": "Show, copy and check presets: of inputs, features and FVD.",
    "recipes": "Show, copy and check training recipes.",
    "cache": "List, remove and verify cached files.",
    "doctor": "Check this machine: versions, devices, what works, known problems.",
}


def _add_quiet(command: click.Command) -> None:
    """Add --quiet to a command, or to the commands of a group."""
    if isinstance(command, click.Group):
        for child in command.commands.values():
            _add_quiet(child)
    elif not any("--quiet" in parameter.opts for parameter in command.params):
        command.params.append(quiet_option())


class _Commands(click.Group):
    """A group that imports `i3dzoo.cli.NAME` when command NAME runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]  # `list` becomes the module of that command

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"i3dzoo.cli.{cmd_name}").command
        _add_quiet(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="i3dzoo")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Convert, verify, run, train and export I3D (Inflated 3D ConvNet) models.

    \b
    Get started:
      i3dzoo pull rgb_scratch
      i3dzoo predict clip.mp4 --model rgb_scratch
      i3dzoo convert rgb_scratch mine.safetensors --labels hmdb51
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines


cli.params += [completion_option(install=True), completion_option(install=False)]


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line; the console script `i3dzoo`."""
    arguments = sys.argv[1:] if argv is None else argv
    use_any_encoding()
    if instruction := os.environ.get(VARIABLE):
        answer_shell(cli, instruction)
    with _exit_on_sigterm():
        sys.exit(run(lambda: _invoke(arguments), arguments))


def _invoke(arguments: list[str]) -> None:
    set_quiet(False)
    with cli.make_context("i3dzoo", [*arguments]) as context:
        cli.invoke(context)


@contextlib.contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Raise SystemExit on SIGTERM, so that temporary files and caches are removed.

    This does not apply to the processes of a launcher, since a process that waits in a collective
    would not exit. It does not apply to forked workers, which have nothing to remove.
    """
    owner = os.getpid()

    def end(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
        if os.getpid() == owner:
            sys.exit(128 + number)
        os.kill(os.getpid(), number)

    if (
        threading.current_thread() is not threading.main_thread()
        or os.environ.get("WORLD_SIZE", "1") != "1"
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
