"""`i3dzoo verify`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import json_option, print_json, say

if TYPE_CHECKING:
    from i3dzoo.checkpoint import Checkpoint
    from i3dzoo.compare import OutputDifference, TensorDifference
    from i3dzoo.metadata import Stream

_SHOWN = 12  # tensors that differ, in print


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("--against", metavar="OTHER", help="Compare MODELS with this one, tensor by tensor.")
@click.option(
    "--atol",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Largest difference of a tensor's values that passes.",
)
@click.option("--numeric", is_flag=True, help="Run both on the same clip and compare outputs.")
@click.option(
    "--clip",
    type=click.Path(path_type=Path, exists=True),
    help="Run on the middle of this video instead of seeded noise.",
)
@click.option(
    "--logits-atol",
    type=click.FloatRange(min=0),
    help="Let the outputs decide: the largest difference of logits that passes.",
)
@click.option(
    "--stream",
    type=click.Choice(["rgb", "flow"]),
    help="The network to check of files that hold two, as joint TAO checkpoints do.",
)
@json_option
def command(models: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Check MODELS (files, zoo names, Hub repositories): structure, numbers, checksums, identity.

    A zoo name must be the published checkpoint to the last tensor. A file must be sound, and where
    it carries checksums or says that it is a published checkpoint, it must be true to them. The
    files of a Hub repository are all hashed again.

    With --against, files of any layouts are compared by canonical names and values; the exit code
    is 1 where a tensor differs by more than --atol. With --logits-atol the outputs decide instead.

    \b
    Examples:
      i3dzoo verify rgb_scratch
      i3dzoo verify model.ckpt.index mine.safetensors
      i3dzoo verify mine.pt --against rgb_scratch
      i3dzoo verify joint.ckpt --against flow.pt --stream flow
      i3dzoo verify half.pt --against rgb_scratch --numeric --clip a.mp4 --logits-atol 0.1
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    options["numeric"] |= options["clip"] is not None or options["logits_atol"] is not None
    if options["against"] is None:
        if options["numeric"] or options["atol"]:
            raise click.UsageError("--numeric, --clip and the tolerances compare: add --against")
        _verify(models, options["stream"], as_json)
        return
    documents = [_compare(model, as_json, options) for model in models]
    if as_json:
        print_json(documents)
    else:
        say("Next: i3dzoo identify FILE says which published checkpoint it is.")
    if not all(document["agrees"] for document in documents):
        sys.exit(1)


def _verify(models: tuple[str, ...], stream: "Stream | None", as_json: bool) -> None:
    from i3dzoo.loading import find
    from i3dzoo.verify import verify

    documents = []
    for model in models:
        report = verify(find(model, verify=True), stream)
        documents.append(report.to_dict())
        if not as_json:
            for check in report.checks:
                click.echo(f"  ok  {check}")
            click.echo(f"{report.path}: sound")
    if as_json:
        print_json(documents)
    else:
        say("Next: i3dzoo predict VIDEO --model MODEL")


def _compare(model: str, as_json: bool, options: dict[str, Any]) -> dict[str, Any]:
    """Compare one model with the other; return the document about the two."""
    from i3dzoo.checkpoint import read_checkpoint
    from i3dzoo.compare import compare_tensors, tally
    from i3dzoo.loading import find

    here, there = find(model), find(options["against"])
    first, second = (read_checkpoint(file, stream=options["stream"]) for file in (here, there))
    tensors = compare_tensors(first, second, options["atol"])
    outputs = _outputs(first, second, options) if options["numeric"] else ()
    agrees = all(tensor.agrees for tensor in tensors)
    if options["logits_atol"] is not None:
        largest = outputs[-1].largest
        agrees = largest is not None and largest <= options["logits_atol"]
    if not as_json:
        _print_tensors(tensors)
        _print_outputs(outputs)
        click.echo(f"{here} and {there}: {'agree' if agrees else 'differ'}")
    return {
        "file": str(here),
        "against": str(there),
        "agrees": agrees,
        "same_input": first.metadata.input == second.metadata.input,
        "tally": tally(tensors),
        "tensors": [tensor.to_dict() for tensor in tensors],
        "outputs": [output.to_dict() for output in outputs],
    }


def _outputs(
    first: "Checkpoint", second: "Checkpoint", options: dict[str, Any]
) -> "tuple[OutputDifference, ...]":
    from i3dzoo.compare import compare_outputs, seeded_clip, video_clip

    alike = first.metadata.stream == second.metadata.stream
    if alike and first.metadata.input != second.metadata.input:
        say(f"The two describe different inputs; both are fed the first's: {first.metadata.input}")
    path = options["clip"]
    clip = video_clip(first, path) if path else seeded_clip(first)
    return compare_outputs(first, second, clip)


def _print_tensors(tensors: "tuple[TensorDifference, ...]") -> None:
    from i3dzoo.compare import tally

    others = [tensor for tensor in tensors if tensor.status != "same"]
    for tensor in others[:_SHOWN]:
        if tensor.largest:
            click.echo(f"  {tensor.status:<10}  {tensor.name}  by up to {tensor.largest:.3g}")
        else:
            kinds = f"{tensor.here or 'nothing'} and {tensor.there or 'nothing'}"
            click.echo(f"  {tensor.status:<10}  {tensor.name}  {kinds}")
    if len(others) > _SHOWN:
        click.echo(f"  and {len(others) - _SHOWN} more; --json lists all")
    counts = ", ".join(f"{count} {status}" for status, count in tally(tensors).items())
    click.echo(f"tensors: {counts}")


def _print_outputs(outputs: "tuple[OutputDifference, ...]") -> None:
    for output in outputs:
        found = "has another shape" if output.largest is None else f"{output.largest:.3g}"
        click.echo(f"  {output.name:<14} {found:<10} (largest value {output.scale:.3g})")
    if outputs:
        first = next((output.name for output in outputs if output.largest != 0), None)
        words = "all the same" if first is None else f"the first that differs is {first}"
        click.echo(f"outputs: {words}")
