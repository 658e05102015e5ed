"""`i3dzoo doctor`."""

import sys
from typing import Any

import click

from i3dzoo.cli._console import json_option, print_json, show
from i3dzoo.cli.progress import show_progress


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(min=1, max=3600),
    default=120.0,
    show_default=True,
    help="Time limit of each attempt.",
)
@json_option
def command(seconds: float, as_json: bool) -> None:
    """Check this machine, and print a block to paste into a bug report.

    Engines, extras and the video decoder are imported and tried, each in its own process. The block
    has versions, devices, the driver, cuDNN, the cache, and known problems with a remedy. It has no
    tokens, and no path except the cache folder. The exit code is 1 if PyTorch or the decoder does
    not work.

    \b
    Examples:
      i3dzoo doctor
      i3dzoo doctor --json
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo.doctor import examine

    with show_progress() as progress:
        examination = examine(seconds=seconds, progress=progress)
    if as_json:
        document: dict[str, Any] = examination.to_dict()
        print_json(document)
    else:
        show(f"```\n{examination.to_text()}\n```")
    if not examination.works:
        sys.exit(1)
