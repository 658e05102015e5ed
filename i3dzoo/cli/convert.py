"""`i3dzoo convert`."""

import dataclasses
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from i3dzoo import formats
from i3dzoo.checkpoints import convert, converter, presets
from i3dzoo.checkpoints.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.checkpoints.convert import MappedTensor
from i3dzoo.checkpoints.joint import join, write_joint
from i3dzoo.checkpoints.metadata import Stream
from i3dzoo.checkpoints.networks import split_key
from i3dzoo.checkpoints.suffixes import table_for
from i3dzoo.cli._changes import Changes, Report, change_options
from i3dzoo.cli._console import (
    is_quiet,
    json_option,
    key_option,
    print_json,
    run_command,
    say,
    show,
    suggest,
)
from i3dzoo.cli._description import remark_description
from i3dzoo.cli._parameters import LAYOUT, MODEL
from i3dzoo.cli.progress import find_model
from i3dzoo.fetch.find import open_checkpoint
from i3dzoo.files import atomic_write, check_output

_path = click.Path(path_type=Path)


@dataclass(frozen=True)
class _Options:
    source: str
    target: Path
    layout: str
    stream: Stream | None
    flow: str | None
    source_layout: str | None
    converter: Path | None
    ignore: tuple[str, ...]
    altered: bool
    report: Path | None
    dry_run: bool
    force: bool
    as_json: bool
    changes: Changes

    @property
    def brief(self) -> bool:
        """Whether to leave out lists of what became of every tensor and class."""
        return is_quiet() or self.as_json


@dataclass(frozen=True)
class _Network:
    path: Path
    checkpoint: Checkpoint
    changes: Report

    def to_dict(self) -> dict[str, Any]:
        return {
            "source": str(self.path),
            "metadata": self.checkpoint.metadata.to_dict(),
            "changes": self.changes.to_dict(),
        }


@click.command()
@click.argument("source", metavar="SRC", type=MODEL)
@click.argument("target", metavar="[DST]", required=False, type=_path)
@click.option(
    "--to",
    "layout",
    type=LAYOUT,
    metavar="LAYOUT",
    help="Layout of DST, or a converter table of your own (.toml).  [default: by the suffix of "
    "DST, else canonical]",
)
@click.option(
    "--stream",
    type=click.Choice(["rgb", "flow"]),
    help="The network to read if SRC holds two, as joint TAO checkpoints do.",
)
@click.option(
    "--flow",
    metavar="MODEL",
    type=MODEL,
    help="Write SRC and this flow network to one joint file; needs --to tao, or --to deepmind.",
)
@change_options
@click.option(
    "--from",
    "source_layout",
    type=LAYOUT,
    metavar="LAYOUT",
    help="Layout of SRC, if its names are ambiguous.",
)
@click.option("--converter", type=_path, help="Read SRC with a converter table of your own.")
@click.option(
    "--ignore",
    metavar="NAMES",
    multiple=True,
    help="Skip tensors that are not part of the layout, such as 'fc.*'. Can be repeated.",
)
@click.option(
    "--altered", is_flag=True, help="Accept a published checkpoint with one changed tensor."
)
@click.option("--report", type=_path, help="Write the mapping to this JSON file.")
@click.option("--dry-run", is_flag=True, help="Show the mapping and write nothing.")
@click.option("--force", is_flag=True, help="Replace DST if it exists.")
@key_option("source")
@json_option
def command(**values: Any) -> None:
    """Convert a checkpoint SRC (a file in any layout, or a zoo name) to DST.

    The layouts are canonical, deepmind, deepmind600, flax, hassony2, keras, keras3, mmaction,
    piergiaj and tao; gluoncv and torchscript are only read. The layout of SRC is detected. The
    layout of DST is --to; without it, the suffix of DST must stand for one layout only. --dry-run
    shows the mapping of every tensor, and --report writes it to a file. The path of DST is the last
    line of standard output.

    \b
    Examples:
      i3dzoo convert model.ckpt.index rgb_imagenet.safetensors
      i3dzoo convert rgb_scratch hmdb51.safetensors --labels hmdb51 --head match
      i3dzoo convert rgb_scratch flow.safetensors --in-channels 2
      i3dzoo convert rgb_scratch tao.pt --to piergiaj
      i3dzoo convert rgb_scratch model.ckpt --to deepmind
      i3dzoo convert joint.ckpt rgb.safetensors --stream rgb
      i3dzoo convert run.pt teacher.safetensors --key teacher
      i3dzoo convert rgb.safetensors joint.ckpt --flow flow.safetensors --to tao
      i3dzoo convert rgb_scratch mine.pt --to my.toml
      i3dzoo convert bsl.pth.tar bsl.safetensors --input bsl1k
      i3dzoo convert strange.pt --dry-run
      i3dzoo convert strange.pt trunk.safetensors --ignore 'fc.*'
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    changes = Changes(
        **{field.name: values.pop(field.name) for field in dataclasses.fields(Changes)}
    )
    target: Path | None = values["target"]
    layout = values["layout"] or (table_for(target).name if target else "canonical")
    target = target or _default_target(values["source"], layout)
    options = _Options(**{**values, "target": target, "layout": layout}, changes=changes)
    _check_outputs(options)
    networks = _open_networks(options)
    mapping, ignored = _mapping(networks, layout, str(target))
    if options.dry_run and not options.brief:
        _print_mapping(mapping, ignored)
    hint = "" if options.dry_run else "; --dry-run lists them"
    say(f"{len(mapping)} tensors in layout {layout}, {len(ignored)} ignored{hint}")
    for network in networks:
        network.changes.print(brief=options.brief)
        _print_description(network, options)
    if not options.dry_run:
        target = _write(networks, options)
    document = {
        **networks[0].to_dict(),
        **({"flow": networks[1].to_dict()} if options.flow else {}),
        "target": str(target),
        "layout": layout,
        "tensors": [dataclasses.asdict(mapped) for mapped in mapping],
        "ignored": [dataclasses.asdict(mapped) for mapped in ignored],
        "written": not options.dry_run,
    }
    if options.report:
        with atomic_write(options.report) as file:
            file.write(json.dumps(document, indent=2).encode())
    if options.as_json:
        print_json(document)
    elif options.dry_run:
        say(f"Nothing was written. Run the command without --dry-run to write {target}")
    else:
        suggest(_next_command(networks[0], target, layout))
        show(target)


def _next_command(network: _Network, target: Path, layout: str) -> str:
    """Return the command that uses what was written; a fresh head is trained first."""
    name = shlex.quote(str(target))
    if layout != "canonical":
        return f"i3dzoo identify {name}"
    if any(step.head in ("fresh", "zeros") for step in network.changes.history):
        return f"i3dzoo finetune mine --data FOLDER --from {name}"
    return run_command(target, network.checkpoint.metadata.num_classes)


def _check_outputs(options: _Options) -> None:
    """Refuse outputs that cannot be written, before anything is read."""
    target, report = options.target, options.report
    outputs = formats.outputs(table_for(target, options.layout).format, target)
    if report and report.resolve() in [output.resolve() for output in outputs]:
        raise click.UsageError(f"--report and DST are both {report}; choose another report file")
    for output in (*([report] if report else []), *(() if options.dry_run else outputs)):
        check_output(output, options.force)


def _open_networks(options: _Options) -> list[_Network]:
    """Read and change SRC and, with --flow, the flow network."""
    sources: list[tuple[str, Stream | None]] = [(options.source, options.stream)]
    if options.flow:
        if options.changes.in_channels or options.stream == "flow":
            raise click.UsageError(
                "with --flow, SRC is the RGB network; --in-channels and --stream flow do not apply"
            )
        sources = [(options.source, "rgb"), (options.flow, "flow")]
    networks = []
    for name, stream in sources:
        path = find_model(name)
        checkpoint = open_checkpoint(
            path,
            options.source_layout,
            options.converter,
            stream,
            options.altered,
            options.ignore,
            round_float64=options.changes.dtype is not None,
        )
        networks.append(_Network(path, *options.changes.apply(checkpoint)))
    return networks


def _mapping(
    networks: list[_Network], layout: str, where: str
) -> tuple[tuple[MappedTensor, ...], tuple[MappedTensor, ...]]:
    """Return the mapping from the source's names to those of the layout, and what is ignored."""
    table = converter.table(layout)
    if len(networks) > 1:
        rgb, flow = (network.checkpoint for network in networks)
        joined = join(where, rgb, flow, table)
        return joined.mapping, joined.ignored
    checkpoint = networks[0].checkpoint
    written = convert.from_canonical(where, checkpoint.tensors, table)
    assert checkpoint.conversion is not None  # noqa: S101 - it was read from a file
    mapping = convert.compose(checkpoint.conversion, written)
    return mapping, checkpoint.conversion.ignored + written.ignored


def _write(networks: list[_Network], options: _Options) -> Path:
    target, layout, force = options.target, options.layout, options.force
    if len(networks) > 1:
        rgb, flow = (network.checkpoint for network in networks)
        target = write_joint(target, rgb, flow, layout, force)
        if layout == "tao":
            say(f"In the TAO spec: model_type joint, num_fc {2 * rgb.metadata.num_classes}")
        return target
    return write_checkpoint(target, networks[0].checkpoint, layout, force)


def _default_target(source: str, layout: str) -> Path:
    # a folder can be named by dots, and a file name can begin with one
    path = Path(split_key(source)[0])
    own = path.name.strip(".") or path.resolve().name.strip(".")
    stem = own.split(".")[0] or "model"
    name = stem if layout == "canonical" else f"{stem}.{Path(layout).stem}"
    return Path(name + formats.FORMATS[converter.table(layout).format].suffix)


def _print_description(network: _Network, options: _Options) -> None:
    """Say what the tensors do not: an unusual input or network, or a preset that may be right."""
    metadata, layout = network.checkpoint.metadata, options.layout
    if not options.changes.input_preset:
        remark_description(network.path, metadata)
    own = converter.table(layout).preset or presets.DEFAULT
    default = presets.preset(own).inputs.get(metadata.stream)
    variant = metadata.variant if metadata.variant != presets.preset(own).variant else None
    pixels = metadata.input if default and not metadata.input.same_pixels(default) else None
    facts = "; ".join(map(str, filter(None, (variant, pixels))))
    if facts and layout == "canonical":
        say(f"Described by: {facts}")
    elif facts:
        say(f"The layout {layout} has no description: a program that loads it needs {facts}")


def _print_mapping(mapping: tuple[MappedTensor, ...], ignored: tuple[MappedTensor, ...]) -> None:
    width = max((len(mapped.source) for mapped in mapping), default=0)
    for mapped in mapping:
        shape = "x".join(map(str, mapped.shape)) or "scalar"
        say(f"{mapped.source or '-':{width}}  ->  {mapped.target}  [{shape}]  {mapped.operation}")
    for mapped in ignored:
        say(f"{mapped.source:{width}}  ignored: {mapped.operation}")
