"""`i3dzoo report`."""

import dataclasses
from pathlib import Path

import click

from i3dzoo.cli._console import json_option, print_json, say, show

_path = click.Path(path_type=Path)


@click.command()
@click.argument("folder", metavar="RUN_DIR", type=_path)
@click.option(
    "-o",
    "--output",
    type=_path,
    help="The HTML file to write.  [default: report.html in RUN_DIR]",
)
@click.option("--data", type=_path, help="The folder of the videos, if it has moved since the run.")
@click.option(
    "--worst",
    type=click.IntRange(min=0),
    default=12,
    show_default=True,
    help="Number of wrong predictions to show with frames.",
)
@click.option("--no-plots", is_flag=True, help="Do not write curves.png and confusion.png.")
@json_option
def command(
    folder: Path, output: Path | None, data: Path | None, worst: int, no_plots: bool, as_json: bool
) -> None:
    """Write the report of a training run: one HTML file that works without a network.

    RUN_DIR is the output folder of finetune, with run.json, metrics.jsonl and predictions.jsonl.
    The report shows curves, the confusion matrix, the accuracy of each class, the worst
    predictions with frames, the recipe, the environment and the commands. An earlier report is
    replaced. Curves, the confusion matrix and the PNG files beside the report need the extra
    `plot`.

    \b
    Examples:
      i3dzoo report runs/hmdb51
      i3dzoo report runs/hmdb51 --data /data/hmdb51 --worst 24
      i3dzoo report runs/hmdb51 -o hmdb51.html --no-plots
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from i3dzoo.errors import DependencyError
    from i3dzoo.report.plots import plot_run
    from i3dzoo.report.report import write_report
    from i3dzoo.report.run_folder import read_run_folder

    run = read_run_folder(folder)
    if data is not None:
        run = dataclasses.replace(run, run=run.run.replace(data=str(data)))
    path = write_report(run, output, worst=worst)
    plots: list[Path] = []
    try:
        plots = [] if no_plots else plot_run(run, path.parent)
    except DependencyError as error:
        say(f"the report has no curves and no confusion matrix: {error}")
    if as_json:
        metrics = run.metrics.to_dict() if run.metrics else None
        print_json({"report": str(path), "plots": list(map(str, plots)), "metrics": metrics})
        return
    say(str(run.metrics or "the run has no predictions: the report shows only its curves"))
    for plot in plots:
        say(f"  {plot}")
    say("Next: open the report in a browser")
    show(path)
