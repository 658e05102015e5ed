"""Choose a recipe for the size of the data and for the device."""

from typing import Final

from msgspec.structs import replace

from i3dzoo.training.recipe import Recipe, load_recipe
from i3dzoo.video.summary import Summary

AUTO: Final = "auto"

_CPU_CLIPS: Final = 150  # training clips of a run on a CPU, about a second each on one core
_GPU_CLIPS: Final = 3000
_UNBALANCED: Final = 2.0  # times as many videos in the largest class as in the smallest


def choose_recipe(summary: Summary, *, gpu: bool) -> tuple[Recipe, tuple[str, ...]]:
    """Return a recipe for a dataset, and remarks on what was chosen.

    With a GPU it is `small`, and without one `cpu`. Small datasets have smaller batches, and on a
    GPU more epochs; large ones have fewer epochs on a CPU. Classes are weighted if one has at least
    twice as many videos as another.
    """
    name = "small" if gpu else "cpu"
    recipe = load_recipe(name)
    videos = summary.parts.get("train") or sum(summary.classes.values())
    loop, optim = recipe.loop, recipe.optim
    if gpu:
        epochs = min(max(loop.epochs, _GPU_CLIPS // max(videos, 1)), 100)
    else:
        epochs = min(max(_CPU_CLIPS // max(videos, 1), 3), 12)
    batch = min(loop.batch_size, max(videos // 2, 2))
    loop = replace(
        loop, epochs=epochs, batch_size=batch, accumulate=loop.accumulate if batch > 3 else 1
    )
    # a smaller batch makes more steps, so each is smaller
    optim = replace(optim, lr=optim.lr * batch / recipe.loop.batch_size)
    notes = [f"recipe {name}: {epochs} epochs of {videos:,} videos, in batches of {batch}"]
    if not gpu:
        notes.append(
            "there is no GPU, so only the last blocks are trained, on clips of 32 frames of "
            "112x112 pixels; --recipe small trains the whole network at full size"
        )
    counts = [count for count in summary.classes.values() if count]
    if counts and max(counts) >= _UNBALANCED * min(counts):
        optim = replace(optim, class_weights="balanced")
        notes.append(
            f"the classes have {min(counts):,} to {max(counts):,} videos, so they are weighted; "
            "--set optim.class_weights=none turns this off"
        )
    return replace(recipe, loop=loop, optim=optim), tuple(notes)
