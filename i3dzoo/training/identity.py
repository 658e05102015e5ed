"""What makes a run the run that it is: all that must stay as it is for it to be gone on with."""

import hashlib
from typing import TYPE_CHECKING, Any

from i3dzoo.arrays import Tensors
from i3dzoo.training.data import VideoClips
from i3dzoo.training.recipe import Recipe

if TYPE_CHECKING:
    from i3dzoo.training.finetune import Task

__all__ = ["facts_of", "fixed_keys"]

_FREE = frozenset(
    {
        "loop.epochs",
        "loop.max_steps",
        # what is of the device and of the moment
        "loop.accumulate",
        "loop.channels_last",
        "loop.checkpoint_activations",
        "loop.compile",
        "loop.cudnn_benchmark",
        "loop.cudnn_deterministic",
        "loop.precision",
        "loop.save_every",
        "loop.workers",
        "evaluation.batch_size",
    }
)


def fixed_keys(recipe: Recipe) -> dict[str, Any]:
    """Return the keys of a recipe, as `SECTION.KEY`, that make another run of it."""
    sections = {name: part for name, part in recipe.to_dict().items() if isinstance(part, dict)}
    keys = {
        f"{name}.{key}": value for name, part in sections.items() for key, value in part.items()
    }
    return {key: value for key, value in keys.items() if key not in _FREE}


def facts_of(task: "Task", training: VideoClips, testing: VideoClips) -> dict[str, Any]:
    """Return what makes another run beside the recipe: split, videos, models, what is kept."""
    facts = {
        "split": task.split,
        "--keep": ",".join(sorted(task.keep)),
        "training videos": _videos(training),
        "test videos": _videos(testing),
    }
    for stream, dataset in training.datasets.items():
        facts[f"{stream} model"] = f"of digest {_digest(task.checkpoints[stream].tensors)}"
        facts[f"{stream} input"] = str(dataset.spec)
    return facts


def _videos(clips: VideoClips) -> str:
    return f"{len(clips.videos)} of digest {clips.digest[:16]}"


def _digest(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()[:16]
