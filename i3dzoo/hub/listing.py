"""Which repositories of a user i3dzoo can load."""

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING

from i3dzoo.errors import FetchError, UnknownNameError
from i3dzoo.hub import client
from i3dzoo.hub.address import is_address
from i3dzoo.hub.client import understood

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData
    from huggingface_hub.hf_api import ModelInfo

__all__ = ["LIBRARY", "Entry", "list_models"]

LIBRARY = "i3dzoo"
"""The `library_name` of every repository that i3dzoo makes, by which it is found."""


@dataclass(frozen=True)
class Entry:
    """A repository as its card describes it.

    Attributes:
        repository: `USER/NAME`.
        stream: `rgb` or `flow`; None where the card has lost it.
        licence: As the Hub spells it.
        datasets: That it was trained on.
        top1: Of the first result, in percent.
        dataset: That result's.
        private: Whether only some may see it.
        downloads: In the last month, as the Hub counts.
        updated: Day of the last change.
    """

    repository: str
    stream: str | None
    licence: str | None
    datasets: tuple[str, ...]
    top1: float | None
    dataset: str | None
    private: bool
    downloads: int
    updated: datetime.date | None


def list_models(user: str, token: str | bool | None = None) -> list[Entry]:
    """Return a user's or organisation's i3dzoo repositories, by name.

    Args:
        user: Name on the Hub.
        token: Of the Hub; None takes that of this machine. It shows private ones too.

    Raises:
        UnknownNameError: No user can have this name.
        FetchError: The Hub cannot be asked.
        OfflineError: HF_HUB_OFFLINE is set.
    """
    if not is_address(f"{user}/x"):
        raise UnknownNameError(
            f"{user}: is no name of a user on the Hub; expected letters, digits, - and _"
        )
    with understood(user, FetchError):
        found = list(
            client.api(token).list_models(author=user, filter=LIBRARY, full=True, cardData=True)
        )
    return sorted(map(_entry, found), key=lambda entry: entry.repository)


def _entry(info: "ModelInfo") -> Entry:
    tags = info.tags or []
    card = info.card_data
    top1, dataset = _result(card)
    datasets = getattr(card, "datasets", None) or []
    return Entry(
        repository=info.id,
        stream=next((stream for stream in ("rgb", "flow") if stream in tags), None),
        licence=getattr(card, "license_name", None) or getattr(card, "license", None),
        datasets=(datasets,) if isinstance(datasets, str) else tuple(datasets),
        top1=top1,
        dataset=dataset,
        private=bool(info.private),
        downloads=info.downloads or 0,
        updated=info.last_modified.date() if info.last_modified else None,
    )


def _result(card: "ModelCardData | None") -> tuple[float | None, str | None]:
    """Return top-1 of the first result; a card that people have edited may hold anything."""
    results = getattr(card, "eval_results", None) or []
    try:
        return float(results[0].metric_value), str(results[0].dataset_name)
    except (IndexError, TypeError, ValueError):
        return None, None
