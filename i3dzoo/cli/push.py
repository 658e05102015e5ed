"""`i3dzoo push`."""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import json_option, print_json, say

if TYPE_CHECKING:
    from i3dzoo.checkpoint import Checkpoint
    from i3dzoo.hub import Package, Pushed


@click.command()
@click.argument("model", metavar="FILE")
@click.argument("repository", metavar="USER/NAME")
@click.option("--private", is_flag=True, help="Make a private repository.")
@click.option("--tag", help="Name the commit so, such as v1.")
@click.option("--message", help="First line of the commit's message.")
@click.option("--license", "licence", help="SPDX identifier, where FILE does not tell it.")
@click.option("--labels", help="Names of the classes: hmdb51, or a file with one a line.")
@click.option("--results", type=click.Path(path_type=Path), help="JSON results, for the card.")
@click.option("--onnx", type=click.Path(path_type=Path), help="The same network, exported to ONNX.")
@click.option("--base-model", help="Hub repository that it was trained from.")
@click.option("--dataset", "datasets", multiple=True, help="That it was trained on; repeatable.")
@click.option("--parent", metavar="COMMIT", help="Push only if the branch is at this commit.")
@click.option("--dry-run", is_flag=True, help="Show the files and the card and send nothing.")
@json_option
def command(model: str, repository: str, **options: Any) -> None:
    """Push a checkpoint (a file of any layout or a zoo name) to the Hugging Face Hub.

    The repository gets canonical weights, config.json, preprocessor_config.json, labels.txt,
    SHA256SUMS and a model card, in one commit. training_curves.png and confusion_matrix.png travel
    along when they lie beside FILE. Nothing is pushed whose licence or labels are not known.

    The address of the commit is the last line of standard output. The token is that of
    `hf auth login` or HF_TOKEN.

    \b
    Examples:
      i3dzoo push hmdb51.safetensors USER/i3d-hmdb51 --dry-run
      i3dzoo push hmdb51.safetensors USER/i3d-hmdb51 --results results.json --tag v1
      i3dzoo push rgb_scratch USER/i3d-kinetics --private
      i3dzoo push tao.pt USER/i3d-own --labels classes.txt --license Apache-2.0
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo import hub
    from i3dzoo.checkpoint import read_checkpoint
    from i3dzoo.loading import find

    address = hub.parse(repository)
    if address.file or repository != address.repository:
        raise click.UsageError(f"{repository}: name USER/NAME; --tag names the revision")
    source = find(model)
    checkpoint = _labelled(read_checkpoint(source), options["labels"])
    facts = ("licence", "results", "onnx", "base_model", "datasets")
    about = hub.About(repository=repository, **{key: options[key] for key in facts})
    with tempfile.TemporaryDirectory() as folder:
        package = hub.prepare(checkpoint, Path(folder), about, source)
        del checkpoint  # it holds the source's mapping, as large as the weights
        pushed = None
        if not options["dry_run"]:
            _quiet_unless_watched()
            keys = ("private", "tag", "message", "parent")
            pushed = hub.push(package, repository, **{key: options[key] for key in keys})
    if options["as_json"]:
        print_json(_document(repository, package, pushed))
    else:
        _print(repository, package, pushed)


def _quiet_unless_watched() -> None:
    """Leave the bars of the Hub's client out of log files."""
    if not sys.stderr.isatty():
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()


def _labelled(checkpoint: "Checkpoint", labels: str | None) -> "Checkpoint":
    if labels is None:
        return checkpoint
    from i3dzoo.head import change_head
    from i3dzoo.labels import find_labels

    return change_head(checkpoint, None, find_labels(labels), "keep")


def _document(repository: str, package: "Package", pushed: "Pushed | None") -> dict[str, Any]:
    return {
        "repository": repository,
        "licence": package.licence,
        "files": [
            {"name": name, "size": size, "sha256": digest} for name, size, digest in package.files
        ],
        "card": package.card,
        "pushed": pushed is not None,
        "commit": pushed.commit if pushed else None,
        "url": pushed.url if pushed else None,
        "tag": pushed.tag if pushed else None,
    }


def _print(repository: str, package: "Package", pushed: "Pushed | None") -> None:
    from i3dzoo.cli._progress import megabytes

    show = say if pushed else click.echo
    for name, size, digest in package.files:
        show(f"{name:<26} {megabytes(size):>9}  sha256 {digest}")
    if pushed is None:
        click.echo(f"\n{package.card}")
        say(f"Nothing was sent. Next: the same without --dry-run pushes it to {repository}")
        return
    at = f"@{pushed.tag}" if pushed.tag else ""
    say(f"Next: i3dzoo pull {repository}{at}")
    click.echo(pushed.url)
