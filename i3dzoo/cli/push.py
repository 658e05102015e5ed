"""`i3dzoo push`."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from i3dzoo import hub
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.head import change_head
from i3dzoo.checkpoints.labels import check_labels, find_labels
from i3dzoo.cli._console import is_quiet, json_option, key_option, print_json, say, show, suggest
from i3dzoo.cli._parameters import LABELS, MODEL
from i3dzoo.cli.progress import find_model, megabytes
from i3dzoo.fetch.find import open_checkpoint
from i3dzoo.hub import Package, Pushed

_path = click.Path(path_type=Path)


@click.command()
@click.argument("model", metavar="FILE", type=MODEL)
@click.argument("repository", metavar="USER/NAME")
@click.option("--private", is_flag=True, help="Create a private repository.")
@click.option("--tag", help="Tag of the commit, such as v1.")
@click.option("--message", help="First line of the commit message.")
@click.option("--license", "licence", help="SPDX identifier, if FILE does not have one.")
@click.option("--labels", type=LABELS, help="Class names: hmdb51, or a file of names.")
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    help="Results of `i3dzoo evaluate --results`, for the model card.",
)
@click.option(
    "--onnx",
    type=click.Path(path_type=Path),
    help="ONNX export of the same network, to be pushed too.",
)
@click.option("--base-model", help="Hub repository of the model that this one was fine-tuned from.")
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    help="Dataset that the model was trained on. Can be repeated.",
)
@click.option("--parent", metavar="COMMIT", help="Push only if the branch is at this commit.")
@click.option("--dry-run", is_flag=True, help="Show the files and the model card; send nothing.")
@key_option("model")
@json_option
def command(
    model: str,
    repository: str,
    private: bool,
    tag: str | None,
    message: str | None,
    parent: str | None,
    labels: str | None,
    dry_run: bool,
    as_json: bool,
    **about: Any,
) -> None:
    """Push a checkpoint (a file in any layout, or a zoo name) to the Hugging Face Hub.

    One commit contains the canonical weights, config.json, preprocessor_config.json, labels.txt,
    SHA256SUMS and a model card. training_curves.png and confusion_matrix.png are added if they are
    in the folder of FILE. The licence and the labels must be known.

    The URL of the commit is the last line of standard output. The token comes from `hf auth login`
    or from HF_TOKEN.

    \b
    Examples:
      i3dzoo push hmdb51.safetensors USER/i3d-hmdb51 --dry-run
      i3dzoo push hmdb51.safetensors USER/i3d-hmdb51 --results results.json --tag v1
      i3dzoo push rgb_scratch USER/i3d-kinetics --private
      i3dzoo push tao.pt USER/i3d-own --labels classes.txt --license Apache-2.0
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    address = hub.parse(repository)
    if address.file or repository != address.repository:
        raise click.UsageError(f"{repository}: expected USER/NAME; use --tag for the revision")
    _check_name(repository)
    source = find_model(model)
    checkpoint = _with_labels(open_checkpoint(source), labels)
    facts = hub.About(repository=repository, **about)
    with tempfile.TemporaryDirectory() as folder:
        package = hub.prepare(checkpoint, Path(folder), facts, source)
        del checkpoint  # frees the mapped source file
        pushed = None
        if not dry_run:
            _hide_bars_in_logs()
            pushed = hub.push(
                package, repository, private=private, tag=tag, message=message, parent=parent
            )
    if as_json:
        print_json(_document(repository, package, pushed))
    else:
        _print(repository, package, pushed)


def _check_name(repository: str) -> None:
    """Apply the Hub's rules for names, which a dry run would not meet otherwise."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id  # nowhere re-exported to mypy

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise click.UsageError(str(error)) from error


def _hide_bars_in_logs() -> None:
    """Disable the progress bars of the Hub's client off a terminal, and with --quiet."""
    if is_quiet() or not sys.stderr.isatty():
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()


def _with_labels(checkpoint: Checkpoint, labels: str | None) -> Checkpoint:
    if labels is None:
        return checkpoint
    names = find_labels(labels)
    check_labels(labels, names, checkpoint.metadata.num_classes)
    return change_head(checkpoint, None, names, "keep")


def _document(repository: str, package: Package, pushed: Pushed | None) -> dict[str, Any]:
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


def _print(repository: str, package: Package, pushed: Pushed | None) -> None:
    output = say if pushed else show
    for name, size, digest in package.files:
        output(f"{name:<26} {megabytes(size):>9}  sha256 {digest}")
    if pushed is None:
        show(f"\n{package.card}")
        say(f"Nothing was sent. Run the command without --dry-run to push to {repository}")
        return
    at = f"@{pushed.tag}" if pushed.tag else ""
    suggest(f"i3dzoo pull {repository}{at}")
    show(pushed.url)
