"""What a user sees of a training run: a bar on terminals, a line an epoch elsewhere."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from i3dzoo._parallel import is_main
from i3dzoo.cli._console import say

if TYPE_CHECKING:
    from i3dzoo.video import BadVideo

__all__ = ["Watch"]


class Watch:
    """Shows how training goes, on the main process.

    Args:
        epochs: Of the recipe.
        steps: The most steps, however many epochs that is.
    """

    def __init__(self, epochs: int, steps: int | None = None) -> None:
        self.epochs, self.steps = epochs, steps
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> "Watch":
        if is_main() and sys.stderr.isatty():
            self.bar = _bar()
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def tell(self, text: str) -> None:
        """Print a remark, above the bar where there is one."""
        if self.bar is None:
            say(text)
        else:
            self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def leave_out(self, bad: "BadVideo") -> None:
        """Name a video that cannot be read."""
        self.tell(f"{bad.file}: left out: {bad.reason}")

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Show what was journalled."""
        if line["kind"] == "epoch":
            whole = line["epoch"] == int(line["epoch"])
            where = f"epoch {line['epoch']:g} of {self.epochs}" if whole else f"step {line['step']}"
            self.tell(
                f"{where}: validation loss {line['val_loss']:.4f}, top-1 {100 * line['top1']:.2f} %"
            )
            return
        steps = int(line["steps_an_epoch"])
        if self.bar is not None:
            self._move(line, steps)
        elif line["step"] % steps == 0:
            say(
                f"epoch {line['epoch']:g} of {self.epochs}: loss {line['loss']:.4f}, "
                f"top-1 {100 * line['top1']:.2f} % of the last batch, "
                f"{line['clips_per_second']:.1f} clips/s, {line['data_wait']:.0%} waiting for data"
            )

    def _move(self, line: Mapping[str, Any], steps: int) -> None:
        fields: dict[str, Any] = {
            "epoch": f"{line['epoch']:.2f}/{self.epochs}",
            "loss": line["loss"],
            "top1": line["top1"],
            "rate": line["clips_per_second"],
            "wait": line["data_wait"],
        }
        if self.task is None:
            total = min(self.epochs * steps, self.steps or self.epochs * steps)
            # of a run that is resumed, the time left is that of the steps that are left
            self.task = self.bar.add_task("", total=total, completed=line["step"] - 1, **fields)
        self.bar.update(self.task, completed=line["step"], **fields)


def _bar() -> Any:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("epoch {task.fields[epoch]}"),
        progress.BarColumn(20),
        progress.TextColumn("loss {task.fields[loss]:.3f} top-1 {task.fields[top1]:.1%}"),
        progress.TextColumn("{task.fields[rate]:.1f} clips/s wait {task.fields[wait]:.0%}"),
        progress.TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
    )
