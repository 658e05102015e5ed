"""What commands share: options, and remarks on standard error, results on standard output."""

import json
from typing import Any

import click

__all__ = ["device_option", "engine_option", "json_option", "print_json", "say"]

device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)

engine_option = click.option(
    "--engine",
    type=click.Choice(["auto", "torch", "onnxruntime", "tensorrt"]),
    default="auto",
    show_default=True,
    help="What runs it; auto takes what the file is for.",
)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)


def say(text: str = "") -> None:
    """Print a remark on standard error."""
    click.echo(text, err=True)


def print_json(document: Any) -> None:
    """Print the one JSON document of a command on standard output.

    JSON has no word for what is not finite, so that becomes null.
    """
    plain = json.loads(json.dumps(document), parse_constant=lambda _: None)
    click.echo(json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False))
