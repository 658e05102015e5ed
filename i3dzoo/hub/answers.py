"""Read and check what a Hub or a mirror answers to a pull or a list.

Only the commit and the file names of the listing become parts of paths, and the digests of the
listing name the files in the cache. Headers are checked too, but nothing is named after them.
"""

import re
from collections.abc import Mapping
from typing import Final, Literal, TypeVar
from urllib.parse import quote, urlsplit

import huggingface_hub

from i3dzoo import transfer
from i3dzoo.errors import FetchError
from i3dzoo.hub import client
from i3dzoo.hub.address import Address
from i3dzoo.hub.client import Token
from i3dzoo.hub.failures import translate_errors
from i3dzoo.hub.forms import MAX_BYTES, ListedFile, Refs, Repository
from i3dzoo.records import convert, parse_json

_ETAG: Final = re.compile("[0-9a-f]{40}(?:[0-9a-f]{24})?")
_NEXT: Final = re.compile(r'<([^<>\s]{1,4096})>\s*;\s*rel="?next"?')
_MAX_PAGES: Final = 20

T = TypeVar("T")


def read_repository(
    address: Address, token: Token, kind: Literal["models", "datasets"] = "models"
) -> tuple[Repository, dict[str, ListedFile]]:
    """Return a revision of a repository, and its files by name."""
    where = f"{'hf://datasets/' if kind == 'datasets' else ''}{address}: the Hub's answer"
    path = f"/api/{kind}/{address.repository}/revision/{quote(address.revision, safe='')}"
    answer, _ = _read(f"{path}?blobs=true", Repository, where, token)
    files = {}
    for item in answer.siblings:
        name = str(item.get("rfilename"))[:80]
        file = convert(item, ListedFile, f"{where}: the file {name!r}", FetchError)
        files[file.name] = file
    return answer, files


def read_tags(repository: str, token: Token) -> dict[str, str]:
    """Return the commits of a repository's tags, by the names of the tags."""
    path = f"/api/models/{repository}/refs"
    refs, _ = _read(path, Refs, f"{repository}: the Hub's answer", token)
    return {tag.name: tag.target_commit for tag in refs.tags}


def read_pages(path: str, item: type[T], where: str, token: Token) -> list[T]:
    """Return the items of a list that the Hub gives page by page."""
    items: list[T] = []
    for _ in range(_MAX_PAGES):
        page, headers = _read(path, list[item], where, token)  # type: ignore[valid-type]
        items += page
        following = _NEXT.search(headers.get("Link", "")[:8192])
        if following is None:
            return items
        url = urlsplit(following[1])
        path = f"{url.path}?{url.query}"  # on the same host, whatever the answer says
    raise FetchError(f"{where}: the list has more than {_MAX_PAGES} pages")


def _read(path: str, kind: type[T], where: str, token: Token) -> tuple[T, Mapping[str, str]]:
    """Read the JSON of a path of the Hub; return it with the headers."""
    with translate_errors(where.partition(": ")[0], FetchError):
        url = f"{client.api(token).endpoint}{path}"
        with client.open_answer(url, token, {}) as response:
            data = transfer.read(response, MAX_BYTES, where)
            headers = response.headers
    return parse_json(data, kind, where, error=FetchError, limit=MAX_BYTES), headers


def check_headers(address: Address, file: ListedFile, commit: str, url: str, token: Token) -> None:
    """Compare the headers of a file with the listing."""
    with translate_errors(str(address), FetchError):
        headers = huggingface_hub.get_hf_file_metadata(
            url, token=token, headers=client.headers(token)
        )
    etag = headers.etag or ""
    for field, actual, expected, fits in (
        ("X-Repo-Commit", headers.commit_hash, commit, headers.commit_hash == commit),
        ("ETag", etag, "40 or 64 hexadecimal digits", _ETAG.fullmatch(etag)),
        ("size", headers.size, f"{file.size} as listed", headers.size in (None, file.size)),
    ):
        if not fits:
            raise FetchError(
                f"{address}: {file.name}: the header {field}: expected {expected}, "
                f"found {str(actual)[:80]!r}; nothing was downloaded"
            )
