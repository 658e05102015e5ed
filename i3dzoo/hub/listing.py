"""List the i3dzoo repositories of a user."""

import contextlib
import datetime
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import msgspec

from i3dzoo.errors import UnknownNameError
from i3dzoo.hub.address import is_address
from i3dzoo.hub.answers import read_pages
from i3dzoo.hub.client import Token
from i3dzoo.hub.forms import Count, Name


@dataclass(frozen=True)
class ListedModel:
    """A repository, as its card describes it; None is what the card does not state."""

    repository: str
    stream: str | None
    licence: str | None  # as the Hub spells it
    datasets: tuple[str, ...]
    top1: float | None  # of the first result, in percent
    dataset: str | None  # of the first result
    private: bool
    downloads: int  # in the last month, as the Hub counts them
    updated: datetime.date | None


def list_models(user: str, token: Token = None) -> list[ListedModel]:
    """Return the i3dzoo repositories of a user or an organisation, sorted by name.

    Args:
        user: Name on the Hub.
        token: Token for the Hub, to list private repositories too; None uses the one of this
            machine.

    Raises:
        UnknownNameError: This cannot be the name of a user.
        FetchError: The Hub does not answer or refuses.
        OfflineError: HF_HUB_OFFLINE is set.
    """
    if not is_address(f"{user}/x"):
        raise UnknownNameError(
            f"{user}: is not the name of a user on the Hub; expected letters, digits, - and _"
        )
    query = urlencode({"author": user, "filter": "i3dzoo", "full": "true", "cardData": "true"})
    where = f"{user}: the Hub's answer"
    models = read_pages(f"/api/models?{query}", _Model, where, token)
    return sorted(map(_entry, models), key=lambda entry: entry.repository)


class _Model(
    msgspec.Struct, frozen=True, rename={"last_modified": "lastModified", "card": "cardData"}
):
    id: Name
    tags: list[str] = []
    private: bool = False
    downloads: Count = 0
    last_modified: datetime.datetime | None = None
    card: Any = None  # people edit it


def _entry(model: _Model) -> ListedModel:
    card = model.card if isinstance(model.card, dict) else {}
    top1 = dataset = None
    with contextlib.suppress(LookupError, TypeError, ValueError):
        result = card["model-index"][0]["results"][0]
        top1, dataset = float(result["metrics"][0]["value"]), str(result["dataset"]["name"])
    named = card.get("datasets")
    datasets = named if isinstance(named, list) else [named]
    licences = (card.get("license_name"), card.get("license"))
    return ListedModel(
        repository=model.id,
        stream=next((stream for stream in ("rgb", "flow") if stream in model.tags), None),
        licence=next((name for name in licences if isinstance(name, str)), None),
        datasets=tuple(name for name in datasets if isinstance(name, str)),
        top1=top1,
        dataset=dataset,
        private=model.private,
        downloads=model.downloads,
        updated=model.last_modified.date() if model.last_modified else None,
    )
