"""`i3dzoo cache`."""

import sys
from typing import TYPE_CHECKING

import click
from rich.table import Table

from i3dzoo.cli._console import (
    cell,
    json_option,
    print_json,
    say,
    show,
    show_table,
    suggest,
)
from i3dzoo.cli._parameters import KEPT
from i3dzoo.cli.progress import megabytes, show_progress
from i3dzoo.errors import I3DZooError

if TYPE_CHECKING:
    from i3dzoo.storage import Entry


yes_option = click.option("--yes", is_flag=True, help="Remove without asking.")


@click.group()
def command() -> None:
    """Show, remove and verify what i3dzoo keeps on the disk.

    These are the models of the zoo, unfinished downloads, the fastest engine of each model,
    repositories in the Hub's cache that i3dzoo made or uses, and decoded frames of training runs.
    Nothing else is touched, and links are not followed.

    \b
    Examples:
      i3dzoo cache ls
      i3dzoo cache rm rgb_imagenet
      i3dzoo cache prune
      i3dzoo cache verify
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines


@command.command("ls")
@json_option
def ls(as_json: bool) -> None:
    """List the cached files, with their sizes and what is lost if they are removed.

    \b
    Examples:
      i3dzoo cache ls
      i3dzoo cache ls --json
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo import storage, zoo

    kept, others = storage.entries(), storage.others_in_hub_cache()
    if as_json:
        total = sum(entry.size for entry in kept)
        folder = str(zoo.cache_dir())
        print_json({"cache": folder, "size": total, "entries": [entry.to_dict() for entry in kept]})
        return
    if not kept:
        say(f"the cache {zoo.cache_dir()} is empty")
        return
    _show(kept)
    say(f"\nfolder: {zoo.cache_dir()}")
    if others:
        say(f"The Hub's cache has {len(others)} other repositories, which i3dzoo leaves alone.")
    suggest("i3dzoo cache rm NAME", "i3dzoo cache verify")


@command.command("rm")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=KEPT)
@yes_option
@json_option
def rm(names: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Remove models and repositories by the names that `i3dzoo cache ls` shows.

    \b
    Examples:
      i3dzoo cache rm rgb_imagenet flow_imagenet
      i3dzoo cache rm USER/i3d-hmdb51 --yes
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo import storage

    _remove(storage.find_entries(names), yes, as_json)


@command.command("prune")
@yes_option
@json_option
def prune(yes: bool, as_json: bool) -> None:
    """Remove unfinished downloads and the leftovers of killed processes; complete models stay.

    \b
    Examples:
      i3dzoo cache prune
      i3dzoo cache prune --yes
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo import storage

    _remove(storage.unused(), yes, as_json)


@command.command("verify")
@click.argument("names", metavar="[NAME...]", nargs=-1, type=KEPT)
@json_option
def verify(names: tuple[str, ...], as_json: bool) -> None:
    """Check models against the published checksums, and repositories against the Hub's digests.

    The exit code is 1 if something is damaged.

    \b
    Examples:
      i3dzoo cache verify
      i3dzoo cache verify rgb_scratch --json
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo import storage

    results = []
    with show_progress() as progress:
        kept = storage.find_entries(names) if names else storage.entries()
        for result in storage.verify(kept, progress):
            results.append(result)
            if result.error is not None:
                progress.message(f"i3dzoo: {result.error}")
            elif not as_json:
                progress.stop()
                show(f"{result.entry.name}: {result.what}")
    if as_json:
        print_json([result.to_dict() for result in results])
    damaged = [result.entry.name for result in results if result.error is not None]
    if damaged:
        suggest(*(f"i3dzoo pull {name} --force" for name in damaged))
        sys.exit(1)


def _remove(kept: "list[Entry]", yes: bool, as_json: bool) -> None:
    """Show what would be lost, ask, and remove; go on after an entry that cannot be removed."""
    from i3dzoo import storage

    if kept and not yes:
        if as_json or sys.stdin is None or not sys.stdin.isatty():
            raise click.UsageError(
                "standard input is not a terminal; pass --yes to remove without asking"
            )
        _show(kept, on_stderr=True)
        total = megabytes(sum(entry.size for entry in kept))
        click.confirm(f"Remove {len(kept)} entries, {total}?", abort=True, err=True)
    removed, failed = [], False
    for entry in kept:
        try:
            storage.remove(entry)
        except I3DZooError as error:
            say(f"i3dzoo: {error}")
            failed = True
        else:
            removed.append(entry)
    size = sum(entry.size for entry in removed)
    say(f"removed {len(removed)} entries, {megabytes(size)}")
    if as_json:
        print_json({"removed": [entry.to_dict() for entry in removed], "size": size})
    else:
        for entry in removed:
            show(entry.path)
    if failed:
        sys.exit(1)


def _show(kept: "list[Entry]", on_stderr: bool = False) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "kind", "size", "lost if removed"):
        table.add_column(heading, justify="right" if heading == "size" else "left", no_wrap=True)
    for entry in kept:
        use = " (in use)" if entry.busy else ""
        table.add_row(*map(cell, (entry.name, entry.kind, megabytes(entry.size), entry.loss + use)))
    total = megabytes(sum(entry.size for entry in kept))
    table.add_row(cell("total"), cell(""), cell(total), cell(""))
    show_table(table, on_stderr=on_stderr)
