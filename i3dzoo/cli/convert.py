"""`i3dzoo convert`."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from i3dzoo.cli._console import json_option, print_json, say
from i3dzoo.cli._surgery import operate, say_surgery, surgery_options

if TYPE_CHECKING:
    from i3dzoo.checkpoint import Checkpoint
    from i3dzoo.convert import Step
    from i3dzoo.metadata import Stream


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="[DST]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--to",
    "layout",
    default="canonical",
    show_default=True,
    help="Layout of DST, or a table of your own (.toml).",
)
@click.option(
    "--stream",
    type=click.Choice(["rgb", "flow"]),
    help="The network to read of a SRC that holds two, as joint TAO checkpoints do.",
)
@click.option(
    "--flow",
    metavar="MODEL",
    help="Write one joint file of SRC and this flow network: --to tao, or deepmind with two "
    "scopes.",
)
@surgery_options
@click.option("--from", "source_layout", help="Layout of SRC, where names do not tell.")
@click.option(
    "--converter", type=click.Path(path_type=Path), help="Read SRC by a table of your own."
)
@click.option(
    "--ignore",
    metavar="NAMES",
    multiple=True,
    help="Leave out tensors that the layout does not know, such as 'fc.*'; may be repeated.",
)
@click.option("--altered", is_flag=True, help="SRC is a published one with one tensor changed.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the mapping as JSON.")
@click.option("--dry-run", is_flag=True, help="Show the mapping and write nothing.")
@click.option("--quiet", is_flag=True, help="Leave the mapping out.")
@click.option("--force", is_flag=True, help="Replace DST if it exists.")
@json_option
def command(**options: Any) -> None:
    """Translate a checkpoint SRC (a file of any layout or a zoo name) to DST.

    Layouts are canonical, deepmind, deepmind600, flax, hassony2, keras, keras3, piergiaj and tao;
    that of SRC is recognised. The mapping of every tensor goes to standard error, the path of DST
    is the last line of standard output.

    \b
    Examples:
      i3dzoo convert model.ckpt.index rgb_imagenet.safetensors
      i3dzoo convert rgb_scratch hmdb51.safetensors --labels hmdb51 --head match
      i3dzoo convert rgb_scratch flow.safetensors --in-channels 2
      i3dzoo convert rgb_scratch tao.pt --to piergiaj
      i3dzoo convert rgb_scratch model.ckpt --to deepmind
      i3dzoo convert joint.ckpt rgb.safetensors --stream rgb
      i3dzoo convert rgb.safetensors joint.ckpt --flow flow.safetensors --to tao
      i3dzoo convert rgb_scratch mine.pt --to my.toml
      i3dzoo convert strange.pt --dry-run
      i3dzoo convert strange.pt trunk.safetensors --ignore 'fc.*'
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    layout = options["layout"]
    target = options["target"] or _default_target(options["source"], layout)
    _check_outputs(target, options)
    checkpoints, documents = _read_networks(options)
    steps, ignored = _mapping(checkpoints, layout, str(target))
    if not options["quiet"] and not options["as_json"]:
        _print_mapping(steps, ignored)
    say(f"{len(steps)} tensors of layout {layout}, {len(ignored)} left out")
    for document in documents:
        say_surgery(document["surgery"], brief=options["quiet"] or options["as_json"])
    if not options["dry_run"]:
        target = _write(target, checkpoints, layout, options["force"])
    if options["report"] or options["as_json"]:
        document = {
            **documents[0],
            **({"flow": documents[1]} if options["flow"] else {}),
            "target": str(target),
            "layout": layout,
            "tensors": [dataclasses.asdict(step) for step in steps],
            "ignored": [dataclasses.asdict(step) for step in ignored],
            "written": not options["dry_run"],
        }
        _print_report(document, options)
    if not options["as_json"]:
        _print_result(target, options)


def _check_outputs(target: Path, options: dict[str, Any]) -> None:
    """Refuse outputs that cannot be, before anything is read or written."""
    from i3dzoo import formats, tables
    from i3dzoo._files import check_output

    report: Path | None = options["report"]
    outputs = formats.outputs(tables.table(options["layout"]).format, target)
    if report and report.resolve() in [output.resolve() for output in outputs]:
        raise click.UsageError(f"--report and DST are both {report}; name another for the report")
    for output in (*([report] if report else []), *(() if options["dry_run"] else outputs)):
        check_output(output, options["force"])


def _read_networks(
    options: dict[str, Any],
) -> "tuple[list[Checkpoint], list[dict[str, Any]]]":
    """Read and operate on SRC and, where one is joined to it, on the flow network.

    Returns:
        The checkpoints, and what the report says of each.
    """
    from i3dzoo.checkpoint import read_checkpoint
    from i3dzoo.loading import find

    sources: list[tuple[str, Stream | None]] = [(options["source"], options["stream"])]
    if options["flow"]:
        if options["in_channels"] or options["stream"] == "flow":
            raise click.UsageError("with --flow, SRC is the RGB network, and each keeps its stream")
        sources = [(options["source"], "rgb"), (options["flow"], "flow")]
    layout, converter, altered = (options[key] for key in ("source_layout", "converter", "altered"))
    ignore = options["ignore"]
    checkpoints, documents = [], []
    for name, stream in sources:
        path = find(name)
        checkpoint = read_checkpoint(path, layout, converter, stream, altered, ignore)
        checkpoint, surgery = operate(checkpoint, options)
        metadata = json.loads(checkpoint.metadata.to_json())
        checkpoints.append(checkpoint)
        documents.append({"source": str(path), "metadata": metadata, "surgery": surgery})
    return checkpoints, documents


def _mapping(
    checkpoints: "list[Checkpoint]", layout: str, where: str
) -> "tuple[tuple[Step, ...], tuple[Step, ...]]":
    from i3dzoo import convert, tables

    table = tables.table(layout)
    if len(checkpoints) > 1:
        from i3dzoo.joint import join

        rgb, flow = checkpoints
        joined = join(where, rgb, flow, table)
        return joined.steps, joined.ignored
    checkpoint = checkpoints[0]
    written = convert.from_canonical(where, checkpoint.tensors, table)
    assert checkpoint.conversion is not None  # noqa: S101 - it was read from a file
    steps = convert.compose(checkpoint.conversion, written)
    return steps, checkpoint.conversion.ignored + written.ignored


def _write(target: Path, checkpoints: "list[Checkpoint]", layout: str, force: bool) -> Path:
    from i3dzoo.checkpoint import write_checkpoint

    if len(checkpoints) > 1:
        from i3dzoo.joint import write_joint

        rgb, flow = checkpoints
        target = write_joint(target, rgb, flow, layout, force)
        if layout == "tao":
            say(f"In the TAO spec: model_type joint, num_fc {2 * rgb.metadata.num_classes}")
        return target
    return write_checkpoint(target, checkpoints[0], layout, force)


def _default_target(source: str, layout: str) -> Path:
    from i3dzoo import formats, tables

    # a folder may be named by dots, a file begin with one
    own = Path(source).name.strip(".") or Path(source).resolve().name.strip(".")
    stem = own.split(".")[0] or "model"
    name = stem if layout == "canonical" else f"{stem}.{Path(layout).stem}"
    return Path(name + formats.FORMATS[tables.table(layout).format])


def _print_mapping(steps: "tuple[Step, ...]", ignored: "tuple[Step, ...]") -> None:
    width = max((len(step.source) for step in steps), default=0)
    for step in steps:
        shape = "x".join(map(str, step.shape)) or "scalar"
        say(f"{step.source or '-':{width}}  ->  {step.target}  [{shape}]  {step.operation}")
    for step in ignored:
        say(f"{step.source:{width}}  left out: {step.operation}")


def _print_report(document: dict[str, Any], options: dict[str, Any]) -> None:
    from i3dzoo._files import atomic_write

    if path := options["report"]:
        with atomic_write(path) as file:
            file.write(json.dumps(document, indent=2).encode())
    if options["as_json"]:
        print_json(document)


def _print_result(target: Path, options: dict[str, Any]) -> None:
    if options["dry_run"]:
        say(f"Nothing was written. Next: the same without --dry-run writes {target}")
        return
    if options["layout"] == "canonical":
        say(f"Next: i3dzoo predict VIDEO --model {target}")
    else:
        say(f"Next: i3dzoo identify {target}")
    click.echo(target)
