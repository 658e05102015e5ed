"""Results for the model card, read from a JSON file.

The file has one JSON object, or a list of them, or `{"results": [...]}`:

```json
{"dataset": "hmdb51", "split": "test 1", "top1": 74.3, "top5": 91.9, "videos": 1530}
```

`dataset`, `split` and `top1`, or `mean_ap` of multi-label models, are required. Values are
percentages, and other keys are ignored.
`evaluate --results FILE` writes such a file. The output of `evaluate --json` is accepted too: it is
marked by `"i3dzoo": "evaluation"`, and its accuracies are fractions.
"""

from pathlib import Path
from typing import Any

import msgspec

from i3dzoo.errors import MetadataError
from i3dzoo.records import convert, read_json
from i3dzoo.zoo.manifest import Percent

_TITLES = {
    "hmdb51": "HMDB51",
    "ucf101": "UCF101",
    "charades": "Charades",
    "kinetics-400": "Kinetics-400",
    "kinetics-600": "Kinetics-600",
}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A result of a checkpoint on a dataset, which has its name on the Hub."""

    dataset: str
    split: str
    top1: Percent | None = None
    top5: Percent | None = None
    mean_ap: Percent | None = None
    videos: int | None = None
    source: str | None = None  # address of the publication, if someone else measured the result

    def __post_init__(self) -> None:
        if self.top1 is None and self.mean_ap is None:
            raise ValueError("top1: missing; expected a percentage from 0 to 100, or mean_ap")

    @property
    def title(self) -> str:
        """The usual spelling of the dataset."""
        return _TITLES.get(self.dataset, self.dataset)


def read_results(path: Path, dataset: str | None = None) -> tuple[Result, ...]:
    """Read a file of results; `dataset` is for evaluations that do not state one."""
    document: Any = read_json(path)
    if isinstance(document, dict) and "results" in document:
        document = document["results"]
    documents = document if isinstance(document, list) else [document]
    if not documents:
        raise MetadataError(f"{path}: has no results; expected dataset, split and top1")
    normalised = [_normalise(item, dataset) for item in documents]
    return convert(normalised, tuple[Result, ...], str(path))


def _normalise(item: Any, dataset: str | None) -> Any:
    """Return a result with accuracies in percent and lower-case names of datasets."""
    if not isinstance(item, dict):
        return item
    if item.get("i3dzoo") == "evaluation":
        item = to_percent(item, dataset)
    known = {key: item[key] for key in Result.__struct_fields__ if key in item}
    if "split" in known:
        known["split"] = str(known["split"])
    if isinstance(known.get("dataset"), str):
        known["dataset"] = known["dataset"].lower()
    return known


def to_percent(item: dict[str, Any], dataset: str | None = None) -> dict[str, Any]:
    """Return an evaluation's result for the model card: in percent, with a readable split.

    The result has accuracies in 0..1; `dataset` is for one that does not state its dataset.
    """
    item = {key: value for key, value in item.items() if key != "i3dzoo"}
    item["dataset"] = item.get("dataset") or dataset
    if not item["dataset"]:
        del item["dataset"]
    for key in {"top1", "top5", "mean_class", "mean_ap", "interval"} & set(item):
        item[key] = _percent(item[key])
    split = item.get("split")
    name = f"test {split}" if split in ("1", "2", "3") else "test"
    return {**item, "split": f"{name}, {item.get('protocol', 'center')}"}


def _percent(value: Any) -> Any:
    """Return a fraction, or the fractions of a list, in percent; the type is checked later."""
    if isinstance(value, list):
        return [_percent(item) for item in value]
    return round(100 * value, 2) if type(value) in (int, float) else value
