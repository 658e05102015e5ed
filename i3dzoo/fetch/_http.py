"""HTTP requests: bounded, tried again where that helps, with messages that name the reason."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final, Self
from urllib.parse import urlsplit

import requests
from requests import exceptions as failure
from requests.adapters import HTTPAdapter
from urllib3 import Retry
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)

from i3dzoo.errors import FetchError, UnreachableError
from i3dzoo.text.redaction import hide_password
from i3dzoo.transfer import Answer, LostConnectionError, Policy, watch
from i3dzoo.version import __version__

_ADDRESSES: Final = ("PIP_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_CHUNK: Final = 1 << 16
_MAX_PAGE: Final = 64 << 20  # the largest pages of package indexes have some MB
_OFFLINE: Final = "its name cannot be resolved; is this machine online?"
_PROXY: Final = "the proxy cannot be reached; check HTTP_PROXY and HTTPS_PROXY"
_SCHEME: Final = "leads to an address that is neither http nor https"
_TIMEOUTS: Final = (failure.Timeout, ConnectTimeoutError, ReadTimeoutError)
_REASONS: Final[tuple[tuple[Any, type[FetchError], str], ...]] = (  # the first that fits
    (NameResolutionError, UnreachableError, _OFFLINE),
    (failure.ProxyError, UnreachableError, _PROXY),
    (NewConnectionError, UnreachableError, "the connection was refused"),
    (_TIMEOUTS, UnreachableError, "did not answer in time"),
    (failure.SSLError, FetchError, "its certificate is not trusted; is there a proxy in between?"),
    ((failure.InvalidSchema, failure.MissingSchema), FetchError, _SCHEME),
    (failure.TooManyRedirects, FetchError, "redirects in a circle"),
    (failure.ConnectionError, FetchError, "the connection was cut"),
)


class _Retry(Retry):
    """Retries that refuse to wait for longer than `backoff_max`."""

    def increment(self, *args: Any, **options: Any) -> Self:
        if isinstance(options.get("error"), NameResolutionError):  # trying again does not help
            raise MaxRetryError(options["_pool"], "", options["error"])
        return super().increment(*args, **options)

    def parse_retry_after(self, retry_after: str) -> float:
        try:
            seconds = super().parse_retry_after(retry_after)
        except InvalidHeader:
            return 0.0
        if seconds > self.backoff_max:
            raise InvalidHeader(f"the server asks to wait {seconds:.0f} s; try again then")
        return seconds


def open_session(policy: Policy) -> requests.Session:
    """Return a session that retries failed requests as a policy says."""
    retry = _Retry(
        policy.requests - 1,
        other=0,
        status_forcelist=(408, 429, 500, 502, 503, 504),
        backoff_factor=policy.backoff,
        backoff_max=60,  # seconds; a request fails if the server asks for more
        raise_on_status=False,
    )
    for variable in _ADDRESSES:
        hide_password(os.environ.get(variable, "") or os.environ.get(variable.lower(), ""))
    session = requests.Session()
    session.headers["User-Agent"] = f"i3dzoo/{__version__}"
    session.hooks["response"].append(partial(_read_bounded, policy))
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def _read_bounded(
    policy: Policy, answer: requests.Response, *_: Any, stream: bool, **__: Any
) -> None:
    """Read a page or the body of a redirect, which requests would read however long it is."""
    if stream and not answer.is_redirect:
        return
    data = bytearray()
    try:
        for chunk in watch(answer.iter_content(_CHUNK), policy):
            data += chunk
            if len(data) > _MAX_PAGE:
                where = short_url(answer.url)
                raise FetchError(f"{where}: the answer has more than {_MAX_PAGE} bytes")
    except LostConnectionError as error:
        raise failure.ConnectionError(str(error)) from error
    answer._content = bytes(data)  # what requests itself sets once it has read a body


@contextlib.contextmanager
def open_answer(
    session: requests.Session, url: str, policy: Policy, headers: Mapping[str, str]
) -> Iterator[Answer]:
    """Open the answer to a GET request; a refusal is a FetchError."""
    with (
        translate_errors(url),
        session.get(url, headers=headers, stream=True, timeout=policy.timeout) as answer,
    ):
        if answer.status_code != 416 or "Range" not in headers:
            answer.raise_for_status()
        yield Answer(answer.status_code, answer.headers, _chunks(answer))


def _chunks(answer: requests.Response) -> Iterator[bytes]:
    """Yield bytes as they arrive."""
    try:
        while chunk := answer.raw.read1(_CHUNK, decode_content=False):
            yield chunk
    except ReadTimeoutError as error:
        raise LostConnectionError("stopped sending") from error
    except HTTPError as error:
        raise LostConnectionError("the connection was cut") from error


@contextlib.contextmanager
def translate_errors(url: str) -> Iterator[None]:
    """Turn the exceptions of requests into errors that name the address and the reason."""
    try:
        yield
    except failure.RequestException as error:
        cause = error.args[0] if error.args else error
        cause = getattr(cause, "reason", cause)
        fits = (row for row in _REASONS if isinstance(cause, row[0]) or isinstance(error, row[0]))
        _, kind, reason = next(fits, (None, FetchError, str(cause)))
        if isinstance(error, failure.HTTPError):
            reason = f"HTTP {error.response.status_code} {error.response.reason}".strip()
        raise kind(f"{short_url(url)}: {reason}") from error


def host(url: str) -> str:
    """Return the host and port of an address."""
    return urlsplit(url).netloc.rpartition("@")[2]


def short_url(url: str) -> str:
    """Return an address for messages: shortened, without password and query."""
    folders = urlsplit(url).path.split("/")
    path = "/".join(folders) if len(folders) <= 3 else f"/…/{folders[-1]}"
    return f"{host(url)}{path}"
