"""`i3dzoo report`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from i3dzoo.cli._console import json_option, print_json, say

if TYPE_CHECKING:
    from i3dzoo.training.report import RunFolder


@click.command()
@click.argument("folder", metavar="RUN_DIR", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to.  [default: report.html in RUN_DIR]",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder of the videos, if they are no longer where they were.",
)
@click.option(
    "--worst",
    type=click.IntRange(min=0),
    default=12,
    show_default=True,
    help="How many of the worst predicted videos to show.",
)
@click.option("--no-plots", is_flag=True, help="Leave out curves.png and confusion.png.")
@json_option
def command(
    folder: Path, output: Path | None, data: Path | None, worst: int, no_plots: bool, as_json: bool
) -> None:
    """Make the report of a training run: one HTML file, readable without a network.

    RUN_DIR is what finetune made: run.json, metrics.jsonl and predictions.jsonl. The report shows
    curves, the confusion matrix, the accuracy of each class, the worst predicted videos with their
    frames, the recipe, the environment and the commands. An earlier report is replaced. With the
    extra `plot`, curves.png and confusion.png are written beside it.

    \b
    Examples:
      i3dzoo report runs/hmdb51
      i3dzoo report runs/hmdb51 --data /data/hmdb51 --worst 24
      i3dzoo report runs/hmdb51 -o hmdb51.html --no-plots
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo.training.report import read_folder, write_report

    found = read_folder(folder)
    if data is not None:
        run = dataclasses.replace(found.run, data=str(data))
        found = dataclasses.replace(found, run=run)
    path = write_report(found, output, worst=worst)
    plots = [] if no_plots else _plots(found, path.parent)
    if as_json:
        metrics = found.metrics.to_dict() if found.metrics else None
        names = [str(plot) for plot in plots]
        print_json({"report": str(path), "plots": names, "metrics": metrics})
        return
    if found.metrics is None:
        say("the run has no predictions: the report shows its curves alone")
    else:
        low, high = found.metrics.interval
        say(
            f"top-1 {found.metrics.top1:.1%} ({low:.1%} to {high:.1%}), "
            f"top-5 {found.metrics.top5:.1%}, mean class {found.metrics.mean_class:.1%}, "
            f"{found.metrics.videos} videos"
        )
    for plot in plots:
        say(f"  {plot}")
    say("Next: open it in a browser")
    click.echo(path)


def _plots(found: "RunFolder", folder: Path) -> list[Path]:
    """Write the PNG files, or say which extra they need."""
    from i3dzoo.errors import DependencyError
    from i3dzoo.training import report_plots

    try:
        return report_plots.plot_run(found, folder)
    except DependencyError as error:
        say(f"no PNG files: {error}")
        return []
