"""`i3dzoo verify`."""

import dataclasses
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import (
    device_option,
    json_option,
    key_option,
    print_json,
    run_command,
    say,
    show,
)
from i3dzoo.cli._parameters import MODEL
from i3dzoo.cli.progress import find_model

if TYPE_CHECKING:
    from i3dzoo.checkpoints.metadata import Stream
    from i3dzoo.devices import Device
    from i3dzoo.verify import OutputDifference

_MAX_PRINTED = 12  # tensors that differ
_difference = click.FloatRange(min=0)
_file = click.Path(path_type=Path, exists=True)


@click.command()
@click.argument("models", nargs=-1, required=True, type=MODEL)
@click.option("--against", metavar="OTHER", help="Compare MODELS with this model.")
@click.option(
    "--atol",
    type=_difference,
    default=0.0,
    show_default=True,
    help="Largest difference between tensors that passes.",
)
@click.option("--numeric", is_flag=True, help="Run both on the same clip and compare outputs.")
@click.option(
    "--clip", type=_file, help="Run on the centre clip of this video instead of seeded noise."
)
@click.option(
    "--logits-atol",
    type=_difference,
    help="Compare the logits instead of the tensors: the largest difference that passes.",
)
@click.option(
    "--stream",
    type=click.Choice(["rgb", "flow"]),
    help="The network to check in files that hold two, such as joint TAO checkpoints.",
)
@device_option
@key_option("models")
@json_option
def command(
    models: tuple[str, ...],
    against: str | None,
    stream: "Stream | None",
    as_json: bool,
    **options: Any,
) -> None:
    """Check MODELS (files, zoo names, Hub repositories): structure, numbers, checksums, identity.

    A zoo name must be the published checkpoint, tensor by tensor. A file must be undamaged; if it
    has checksums, or its description names a published checkpoint, its tensors must match them.
    All files of a Hub repository are hashed again.

    With --against, tensors are compared by canonical names and values, whatever the layouts. The
    exit code is 1 if a tensor differs by more than --atol, or with --logits-atol, if the logits do.

    \b
    Examples:
      i3dzoo verify rgb_scratch
      i3dzoo verify model.ckpt.index mine.safetensors
      i3dzoo verify mine.pt --against rgb_scratch
      i3dzoo verify joint.ckpt --against flow.pt --stream flow
      i3dzoo verify half.pt --against rgb_scratch --numeric --clip a.mp4 --logits-atol 0.1
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    if options["clip"] is not None or options["logits_atol"] is not None:
        options["numeric"] = True
    if against is None and (options["numeric"] or options["atol"]):
        raise click.UsageError(
            "--numeric, --clip, --atol and --logits-atol need a model to compare with: add "
            "--against"
        )
    documents = []
    for model in models:
        if against is None:
            document = _verify(model, stream)
        else:
            document = _compare(model, against, stream, **options)
        documents.append(document)
        if not as_json:
            (_print_checks if against is None else _print_differences)(document)
    if as_json:
        print_json(documents)
    elif against is None:
        say(f"Next: {run_command(models[-1], documents[-1]['num_classes'])}")
    else:
        name = shlex.quote(models[-1])
        say(f"Next: i3dzoo identify {name} finds the published checkpoint that it comes from.")
    if not all(document.get("agrees", True) for document in documents):
        sys.exit(1)


def _verify(model: str, stream: "Stream | None") -> dict[str, Any]:
    from i3dzoo.verify import verify

    return dataclasses.asdict(verify(find_model(model, verify=True), stream))


def _print_checks(document: dict[str, Any]) -> None:
    for check in document["checks"]:
        show(f"  ok  {check}")
    show(f"{document['path']}: verified")


def _compare(
    model: str,
    against: str,
    stream: "Stream | None",
    *,
    atol: float,
    numeric: bool,
    clip: Path | None,
    logits_atol: float | None,
    device: "Device",
) -> dict[str, Any]:
    """Return the JSON document about the differences between two models."""
    from i3dzoo.fetch.find import open_checkpoint
    from i3dzoo.verify import compare_outputs, compare_tensors, random_clip

    if numeric:
        from i3dzoo.devices import choose_device

        choose_device(device)  # before anything is read
    here, there = find_model(model), find_model(against)
    first, second = (open_checkpoint(file, stream=stream) for file in (here, there))
    spec, same_input = first.metadata.input, first.metadata.input == second.metadata.input
    networks = [str(checkpoint.metadata.variant) for checkpoint in (first, second)]
    if networks[0] != networks[1]:
        say(f"The two describe different networks: {networks[0]}, and {networks[1]}")
    tensors = compare_tensors(first, second, atol)
    agrees = all(tensor.agrees for tensor in tensors)
    outputs: tuple[OutputDifference, ...] = ()
    if numeric:
        if first.metadata.stream == second.metadata.stream and not same_input:
            say(f"The two describe different inputs; both get the input of the first: {spec}")
        if clip is None:
            pixels = random_clip(first)
        else:
            from i3dzoo.video import centre_clip

            pixels = centre_clip(clip, spec)[None]
        outputs = compare_outputs(first, second, pixels, device)
    if logits_atol is not None:
        largest = outputs[-1].largest
        agrees = largest is not None and largest <= logits_atol
    return {
        "file": str(here),
        "against": str(there),
        "agrees": agrees,
        "same_input": same_input,
        "networks": networks,
        "tally": dict(Counter(tensor.status for tensor in tensors)),
        "tensors": [dataclasses.asdict(tensor) for tensor in tensors],
        "outputs": [dataclasses.asdict(output) for output in outputs],
    }


def _print_differences(document: dict[str, Any]) -> None:
    different = [tensor for tensor in document["tensors"] if tensor["status"] != "same"]
    for tensor in different[:_MAX_PRINTED]:
        how = f"{tensor['here'] or 'nothing'} and {tensor['there'] or 'nothing'}"
        if tensor["largest"]:
            how = f"by up to {tensor['largest']:.3g}"
        show(f"  {tensor['status']:<10}  {tensor['name']}  {how}")
    if len(different) > _MAX_PRINTED:
        show(f"  and {len(different) - _MAX_PRINTED} more; --json lists all")
    tally = document["tally"].items()
    show(f"tensors: {', '.join(f'{count} {status}' for status, count in tally)}")
    outputs = document["outputs"]
    for output in outputs:
        largest = output["largest"]
        shown = "has another shape" if largest is None else f"{largest:.3g}"
        show(f"  {output['name']:<14} {shown:<10} (largest value {output['scale']:.3g})")
    if outputs:
        first = next((output["name"] for output in outputs if output["largest"] != 0), None)
        show(f"outputs: {'all the same' if first is None else f'{first} differs first'}")
    verdict = "agree" if document["agrees"] else "differ"
    if len(set(document["networks"])) > 1:
        verdict = f"the tensors {verdict}, and the networks differ"
    show(f"{document['file']} and {document['against']}: {verdict}")
