"""`i3dzoo list`."""

import dataclasses
from typing import Any

import click
from rich.table import Table

from i3dzoo import hub, zoo
from i3dzoo.cli._console import cell, json_option, print_json, say, show_table, suggest
from i3dzoo.zoo.manifest import Manifest


@click.command()
@click.option(
    "--hub", "user", metavar="USER", help="List the repositories of this Hub user instead."
)
@json_option
def command(user: str | None, as_json: bool) -> None:
    """List the published checkpoints: stream, classes, metrics, licence, size, cached or not.

    Top-1 and top-5 are the published percentages; `i3dzoo info NAME` shows the source. The column
    `from` is the pretraining dataset. The size is that of the download.

    \b
    Examples:
      i3dzoo list
      i3dzoo list --json
      i3dzoo list --hub USER
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    if user is not None:
        _list_hub(user, as_json)
        return
    rows = [_row(zoo.manifest(name)) for name in zoo.names()]
    if as_json:
        print_json(rows)
        return
    _print_table(rows)
    suggest("i3dzoo info rgb_scratch", "i3dzoo pull rgb_scratch")


def _row(model: Manifest) -> dict[str, Any]:
    path = zoo.cached_path(model.name)
    metric = model.metrics[0] if model.metrics else None
    return {
        "name": model.name,
        "title": model.title,
        "stream": model.stream,
        "labels": model.labels,
        "num_classes": model.num_classes,
        "pretraining": model.pretraining,
        "top1": metric.top1 if metric else None,
        "top5": metric.top5 if metric else None,
        "licence": model.licence,
        "download_size": model.sources[0].total_size,
        "download_size_is_exact": model.sources[0].exact,
        "cached": str(path) if path.exists() else None,
    }


def _list_hub(user: str, as_json: bool) -> None:
    entries = hub.list_models(user)
    if as_json:
        rows = [dataclasses.asdict(entry) for entry in entries]
        print_json([row | {"updated": row["updated"] and str(row["updated"])} for row in rows])
        return
    if not entries:
        say(f"{user} has no i3dzoo repository on the Hub that you can see.")
        suggest(f"i3dzoo push FILE {user}/NAME")
        return
    table = _table("repository", "input", "trained on", "top-1", "on", "licence", "updated")
    for entry in entries:
        cells = (
            entry.repository + (" (private)" if entry.private else ""),
            entry.stream or "",
            ", ".join(entry.datasets),
            "" if entry.top1 is None else f"{entry.top1:.1f}",
            entry.dataset or "",
            entry.licence or "",
            str(entry.updated or ""),
        )
        table.add_row(*map(cell, cells))
    show_table(table)
    say()
    suggest(f"i3dzoo pull {entries[0].repository}")


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        numeric = heading in ("top-1", "top-5", "size")
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=True)
    return table


def _print_table(rows: list[dict[str, Any]]) -> None:
    table = _table("name", "input", "labels", "from", "top-1", "top-5", "licence", "size", "cached")
    for row in rows:
        table.add_row(
            row["name"],
            row["stream"],
            row["labels"] or "no head",
            row["pretraining"],
            "" if row["top1"] is None else f"{row['top1']:.1f}",
            "" if row["top5"] is None else f"{row['top5']:.1f}",
            row["licence"],
            ("" if row["download_size_is_exact"] else "up to ")
            + f"{row['download_size'] / 1e6:.0f} MB",
            "yes" if row["cached"] else "no",
        )
    show_table(table)
