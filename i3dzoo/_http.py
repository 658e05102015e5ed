"""What an answer of a web server means: content, a failure that may pass, or one that stays."""

import datetime
import email.utils
import queue
import re
import threading
from collections.abc import Callable
from typing import Final, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests import Response
from requests import exceptions as failure

from i3dzoo.errors import FetchError, UnreachableError

__all__ = [
    "TransientError",
    "check_status",
    "content_range",
    "host",
    "length",
    "shown",
    "total",
    "understood",
    "within",
]

_T = TypeVar("_T")
_TRANSIENT: Final = (408, 429, 500, 502, 503, 504)


class TransientError(Exception):
    """A failure that another attempt may mend.

    Attributes:
        wait: Seconds that the server asks for, if it does.
        kind: The error that it is if no attempt mends it.
    """

    def __init__(
        self, reason: str, wait: float | None = None, kind: type[FetchError] = FetchError
    ) -> None:
        super().__init__(reason)
        self.wait = wait
        self.kind = kind


def within(seconds: float, ask: Callable[[], _T]) -> _T:
    """Return what a request returns, but give up when it takes too long in all.

    The time-outs of sockets begin anew with every byte, so that a server which sends its headers
    a byte at a time would be waited for without end. The thread that waits for it is left behind.

    Raises:
        TransientError: It takes longer.
    """
    answers: queue.SimpleQueue[tuple[_T | None, BaseException | None]] = queue.SimpleQueue()
    late = threading.Event()

    def run() -> None:
        try:
            answer = ask()
        except BaseException as error:  # raised where it is waited for
            answers.put((None, error))
        else:
            answers.put((answer, None))
            if late.is_set() and isinstance(answer, requests.Response):
                answer.close()

    threading.Thread(target=run, daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        late.set()
        raise TransientError("did not answer in time", kind=UnreachableError) from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value] # None only if that is what was returned


def understood(attempt: Callable[[], _T]) -> _T:
    """Run an attempt, telling failures that may pass from those that stay."""
    try:
        return attempt()
    except failure.SSLError as error:
        raise FetchError("its certificate is not trusted; is a proxy in between?") from error
    except failure.InvalidSchema as error:
        raise FetchError("leads to an address that is neither http nor https") from error
    except failure.TooManyRedirects as error:
        raise FetchError("redirects in a circle") from error
    except failure.HTTPError as error:
        check_status(error.response)
        raise
    except failure.Timeout as error:
        raise TransientError("did not answer in time", kind=UnreachableError) from error
    except (failure.ConnectionError, failure.ChunkedEncodingError) as error:
        if "NameResolutionError" in repr(error):
            raise UnreachableError(
                "its name cannot be resolved; is this machine online?"
            ) from error
        refused = "NewConnectionError" in repr(error)
        if refused:
            raise TransientError("refused the connection", kind=UnreachableError) from error
        raise TransientError("cut the connection") from error
    except urllib3.exceptions.ReadTimeoutError as error:
        raise TransientError("fell silent") from error
    except urllib3.exceptions.HTTPError as error:
        raise TransientError("cut the connection") from error


def check_status(answer: Response) -> None:
    """Refuse answers that are no content."""
    status = answer.status_code
    if status in (200, 206):
        return
    reason = f"HTTP {status} {answer.reason or ''}".strip()
    if status in _TRANSIENT:
        raise TransientError(reason, _retry_after(answer))
    raise FetchError(reason)


def host(url: str) -> str:
    """Return the host and port of an address."""
    return urlsplit(url).netloc.rpartition("@")[2]


def shown(url: str) -> str:
    """Return an address as messages show it: short, and without password and signature."""
    folders = urlsplit(url).path.split("/")
    path = "/".join(folders) if len(folders) <= 3 else f"/…/{folders[-1]}"
    return f"{host(url)}{path}"


def length(answer: Response) -> int | None:
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def content_range(answer: Response) -> int | None:
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(found.group(1)) if found else None


def total(answer: Response) -> int | None:
    found = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
    return int(found.group(1)) if found else None


def _retry_after(answer: Response) -> float | None:
    """Return the seconds of a Retry-After header, which holds seconds or a date (RFC 9110)."""
    text = answer.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())
