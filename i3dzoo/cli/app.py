"""`i3dzoo app`."""

from typing import TYPE_CHECKING

import click

from i3dzoo.cli._console import (
    device_option,
    engine_option,
    json_option,
    precision_option,
    print_json,
    say,
    show,
)
from i3dzoo.cli._parameters import MODEL

if TYPE_CHECKING:
    from i3dzoo.devices import Device
    from i3dzoo.engines.base import EngineName
    from i3dzoo.onnx.options import Precision

_MIB = 1 << 20


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. Other people can reach the page unless it is a loopback address.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=7860,
    show_default=True,
    help="Port to listen on; 0 takes any free one.",
)
@click.option(
    "--model",
    type=MODEL,
    metavar="MODEL",
    default="rgb_scratch",
    show_default=True,
    help="Model that is selected at the start.",
)
@click.option(
    "--max-upload",
    metavar="MIB",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Largest upload in MiB.",
)
@click.option(
    "--max-seconds",
    type=click.IntRange(min=1),
    default=600,
    show_default=True,
    help="Longest video in seconds.",
)
@click.option(
    "--max-flow-seconds",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    help="Longest video, in seconds, to compute optical flow for.",
)
@click.option("--open", "in_browser", is_flag=True, help="Open the page in the browser.")
@device_option
@engine_option
@precision_option
@json_option
def command(
    host: str,
    port: int,
    model: str,
    max_upload: int,
    max_seconds: int,
    max_flow_seconds: int,
    in_browser: bool,
    device: "Device",
    engine: "EngineName",
    precision: "Precision | None",
    as_json: bool,
) -> None:
    """Open a local page: drop a video, and see its actions over time.

    The page also compares two models, shows optical flow, browses wrong predictions, shows reports
    of runs, and computes FVD. It needs the extra `app`. It listens on loopback, loads nothing from
    elsewhere, and deletes uploads when the page is closed and when the command ends. End it with
    Ctrl+C.

    \b
    Examples:
      i3dzoo app
      i3dzoo app --model mine.safetensors --open
      i3dzoo app --port 0 --device cpu
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo.app import Settings
    from i3dzoo.app.server import serve

    settings = Settings(
        host=host,
        port=port,
        model=model,
        max_upload=max_upload * _MIB,
        max_stored=max(4096, 4 * max_upload) * _MIB,
        max_seconds=max_seconds,
        max_flow_seconds=max_flow_seconds,
        engine=engine,
        precision=precision,
        device=device,
    )
    if not settings.local:
        say(
            f"warning: the page listens on {host}, so other people can use it without a password; "
            "files of this machine cannot be named on it"
        )

    def ready(address: str) -> None:
        say("Press Ctrl+C to end")
        if as_json:
            print_json({"address": address})
        else:
            show(address)
        if in_browser:
            click.launch(address)

    serve(settings, ready)
