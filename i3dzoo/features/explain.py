"""Which frames each row of features has seen, without computing the features."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from i3dzoo.checkpoints.metadata import Metadata
from i3dzoo.checkpoints.networks import split_key
from i3dzoo.engines.base import SUFFIXES, load_engine
from i3dzoo.errors import MetadataError
from i3dzoo.features.extraction import plan_streams, with_streams
from i3dzoo.features.planner import Planner
from i3dzoo.features.rows import rows_of, step_count
from i3dzoo.features.settings import FeatureSettings
from i3dzoo.fetch.find import open_checkpoint


def model_metadata(path: str | Path) -> Metadata:
    """Return the description of a checkpoint or of an exported network.

    Raises:
        MetadataError: The model has no description.
    """
    if Path(split_key(path)[0]).suffix.lower() not in SUFFIXES:
        return open_checkpoint(path).metadata
    metadata = load_engine(path).metadata
    if metadata is None:
        raise MetadataError(f"{path}: has no description")
    return metadata


def explain(
    models: Sequence[Metadata],
    video: str | Path,
    settings: FeatureSettings,
    flow_folder: Path | None = None,
) -> dict[str, Any]:
    """Return what the rows of a video are: `rows`, `shape` [rows, crops, channels] and `notes`.

    Raises:
        VideoError: The video cannot be decoded.
        OptionError: The settings do not apply to the models.
    """
    settings = with_streams(settings, [model.stream for model in models], len(models))
    ordered = sorted(models, key=lambda model: model.stream, reverse=True)
    planners = {
        model.stream: Planner(model, settings, flow_folder=flow_folder) for model in ordered
    }
    plans = plan_streams(planners, video)
    first, planner = next(iter(plans.values())), next(iter(planners.values()))
    steps = [step_count(len(clip.indices), settings, planner.variant) for clip in first.clips]
    rows = rows_of(first, settings, steps)
    channels = sum(plan.channels for plan in plans.values())
    notes = tuple(dict.fromkeys(note for plan in plans.values() for note in plan.notes))
    return {
        "shape": [len(rows), settings.crops, channels],
        "notes": list(notes),
        "rows": rows.table(),
    }
