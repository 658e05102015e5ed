"""The command line: one small file a command. Only it prints, and only it exits.

A command's module is imported when the command is run, so `i3dzoo --help` is instant.
"""

import contextlib
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import click

from i3dzoo import __version__
from i3dzoo.errors import I3DZooError

__all__ = ["main"]

COMMANDS = {
    "list": "Show the published checkpoints: licence, input, metrics, what is cached.",
    "info": "Tell all that is known of a zoo model or of a file.",
    "pull": "Fetch a published checkpoint, verify it to the last tensor, cache it.",
    "identify": "Say which layout a file has and which published checkpoint it is.",
    "convert": "Translate a checkpoint of any layout to canonical, or canonical to any layout.",
    "verify": "Check a checkpoint: structure, finite numbers, checksums, fingerprint.",
    "push": "Push a checkpoint to the Hugging Face Hub, with card, labels and checksums.",
    "predict": "Name the action in videos.",
    "features": "Write what the network sees in videos: 1024 numbers a window, or any layer.",
    "finetune": "Fine-tune on HMDB51, UCF101 or videos of your own, or by a TAO spec.",
    "evaluate": "Measure a checkpoint on a test split, by the published protocols.",
    "report": "Make the report of a training run: one HTML file.",
    "prepare": "Make HMDB51, UCF101 or generated clips ready for training.",
    "export": "Write a network for another engine: ONNX, TensorRT, TAO, TorchScript, torch.export.",
    "bench": "Measure this machine, engine by engine.",
}


class _Commands(click.Group):
    """A group that imports `i3dzoo.cli.NAME` when command NAME is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"i3dzoo.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="i3dzoo")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
def cli(debug: bool) -> None:
    """I3D weights in every layout: pull, verify, convert, predict.

    \b
    Start here:
      i3dzoo pull rgb_scratch
      i3dzoo predict clip.mp4 --model rgb_scratch
      i3dzoo convert rgb_scratch mine.safetensors --labels hmdb51
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines


def main(argv: list[str] | None = None) -> Any:
    """Run the command line; the console script `i3dzoo`."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        with _ended_by_sigterm():
            return cli.main(args=arguments, prog_name="i3dzoo", standalone_mode=True)
    except (I3DZooError, MemoryError) as error:
        if "--debug" in arguments:
            traceback.print_exc()
        else:
            lack = "there is not enough memory: " if isinstance(error, MemoryError) else ""
            click.echo(f"i3dzoo: {lack}{error or 'ask for less'}", err=True)
        sys.exit(1)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, so that temporary files and caches are removed.

    Not where a launcher started several processes: one that waits for the others in a collective
    would not hear of it. Nor in forked workers, which have nothing of their own to remove.
    """
    owner = os.getpid()

    def end(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
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
