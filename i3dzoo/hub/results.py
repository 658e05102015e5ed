"""A file of results for the model card: what `evaluate` writes or prints, or what a user writes.

One JSON object, or a list of them, or `{"results": [...]}`:

```json
{"dataset": "hmdb51", "split": "test 1", "top1": 74.3, "top5": 91.9, "videos": 1530}
```

`dataset`, `split` and `top1` are needed, accuracies are percents; further keys are passed over.
`evaluate --results FILE` writes it so. What `evaluate --json` prints says so of itself (`"i3dzoo":
"evaluation"`): its accuracies are in 0..1, and where it does not know what its data is called, the
checkpoint does.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i3dzoo.errors import MetadataError

__all__ = ["Result", "in_percent", "read_results"]

_NAMES = {
    "hmdb51": "HMDB51",
    "ucf101": "UCF101",
    "kinetics-400": "Kinetics-400",
    "kinetics-600": "Kinetics-600",
}


@dataclass(frozen=True)
class Result:
    """What a checkpoint achieved on a data set.

    Attributes:
        dataset: As the Hub would call it, such as hmdb51.
        split: Such as `test 1`.
        top1: Top-1 accuracy in percent.
        top5: Top-5 accuracy in percent, where it was measured.
        videos: How many were classified, where that is known.
        source: Address of the publication, where it was not measured by whoever pushes.
    """

    dataset: str
    split: str
    top1: float
    top5: float | None = None
    videos: int | None = None
    source: str | None = None

    @property
    def title(self) -> str:
        """The data set as people write it."""
        return _NAMES.get(self.dataset, self.dataset)


def read_results(path: Path, dataset: str | None = None) -> tuple[Result, ...]:
    """Read a file of results.

    Args:
        path: The file.
        dataset: What the data of an evaluation is called that does not say so itself.

    Raises:
        MetadataError: It is missing, no JSON, or lacks an entry; the message names it.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise MetadataError(f"{path}: cannot be read as JSON results: {error}") from error
    if isinstance(document, dict) and "results" in document:
        document = document["results"]
    items = document if isinstance(document, list) else [document]
    if not items:
        raise MetadataError(f"{path}: holds no result; expected dataset, split and top1")
    return tuple(
        _result(path, in_percent(item, dataset) if _is_evaluation(item) else item) for item in items
    )


def _is_evaluation(item: Any) -> bool:
    return isinstance(item, dict) and item.get("i3dzoo") == "evaluation"


def in_percent(item: dict[str, Any], dataset: str | None = None) -> dict[str, Any]:
    """Return what `evaluate` found as a user would write it: in percents, its split in words.

    Args:
        item: With accuracies in 0..1.
        dataset: What its data is called, where it does not say so itself.
    """
    item = {key: value for key, value in item.items() if key != "i3dzoo"}
    item["dataset"] = item.get("dataset") or dataset
    if not item["dataset"]:
        del item["dataset"]
    for key in ("top1", "top5", "mean_class"):
        if type(item.get(key)) in (int, float):
            item[key] = round(100 * item[key], 2)
    if isinstance(item.get("interval"), list):
        item["interval"] = [round(100 * end, 2) for end in item["interval"]]
    split = item.get("split")
    where = f"test {split}" if split in ("1", "2", "3") else "test"
    return {**item, "split": f"{where}, {item.get('protocol', 'center')}"}


def _result(path: Path, item: Any) -> Result:
    if not isinstance(item, dict):
        raise MetadataError(f"{path}: holds {item!r}; expected an object with dataset and top1")
    for key in ("dataset", "split", "top1"):
        if key not in item:
            raise MetadataError(f"{path}: lacks {key}; expected dataset, split and top1")
    for key in ("top1", "top5"):
        value = item.get(key)
        if value is None and key == "top5":
            continue
        if not _is_percent(value):
            raise MetadataError(f"{path}: {key} is {value!r}; expected percents, 0 to 100")
    videos = item.get("videos")
    return Result(
        dataset=str(item["dataset"]).lower(),
        split=str(item["split"]),
        top1=float(item["top1"]),
        top5=None if item.get("top5") is None else float(item["top5"]),
        videos=videos if type(videos) is int else None,
    )


def _is_percent(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 100
