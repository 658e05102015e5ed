"""`i3dzoo verify`."""

import click

from i3dzoo.cli._console import json_option, print_json, say


@click.command()
@click.argument("models", nargs=-1, required=True)
@json_option
def command(models: tuple[str, ...], as_json: bool) -> None:
    """Check MODELS (files, zoo names, Hub repositories): structure, numbers, checksums, identity.

    A zoo name must be the published checkpoint to the last tensor. A file must be sound, and where
    it carries checksums or says that it is a published checkpoint, it must be true to them. The
    files of a Hub repository are all hashed again.

    \b
    Examples:
      i3dzoo verify rgb_scratch
      i3dzoo verify model.ckpt.index mine.safetensors
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo.loading import find
    from i3dzoo.verify import verify

    documents = []
    for model in models:
        report = verify(find(model, verify=True))
        documents.append(report.to_dict())
        if not as_json:
            for check in report.checks:
                click.echo(f"  ok  {check}")
            click.echo(f"{report.path}: sound")
    if as_json:
        print_json(documents)
    else:
        say("Next: i3dzoo predict VIDEO --model MODEL")
