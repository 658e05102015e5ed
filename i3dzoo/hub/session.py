"""What the Hub's client sends and receives on behalf of i3dzoo, bounded and checked.

The client has one session for the whole process. Hooks check the requests of i3dzoo, and leave
those of other users of the client alone.
"""

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import unquote

import huggingface_hub

from i3dzoo.errors import FetchError
from i3dzoo.hub.forms import MAX_BYTES, form_of
from i3dzoo.records import parse_json
from i3dzoo.transfer import Policy, watch
from i3dzoo.version import __version__

AGENT: Final[dict[str, Any]] = {"library_name": "i3dzoo", "library_version": __version__}
_TIMEOUTS: Final = {"connect": 30.0, "read": 300.0, "write": 300.0, "pool": 300.0}  # seconds
_WAITS: Final = {  # the headers that the client obeys
    "Retry-After": re.compile(r"^\s*([0-9]{1,9})"),
    "RateLimit": re.compile(r";\s*t\s*=\s*([0-9]{1,9})"),
}
_LONGEST_WAIT: Final = 60  # seconds that a busy server may ask to wait
_JSON: Final = (200, 201, 400, 409)  # the client reads JSON of these, even of a refusal


def utils() -> Any:
    """Return huggingface_hub.utils, which is loaded on first use and has few types."""
    return importlib.import_module("huggingface_hub.utils")


def guard() -> None:
    """Check all requests of i3dzoo, also after the client has opened a new session."""
    factory: Callable[[], Any] = utils()._http._GLOBAL_CLIENT_FACTORY  # it may be the user's own
    if hasattr(factory, "checks"):
        return

    def open_session() -> Any:
        session = factory()
        hooks = session.event_hooks
        session.event_hooks = {
            "request": [*hooks["request"], _check_request],
            "response": [*hooks["response"], _check_answer],
        }
        return session

    open_session.checks = True  # type: ignore[attr-defined] # a mark on a function
    huggingface_hub.set_client_factory(open_session)


@contextlib.contextmanager
def without_xet() -> Iterator[None]:
    """Send files over plain HTTP while the block runs: Xet's requests cannot be checked."""
    constants: Any = importlib.import_module("huggingface_hub.constants")
    before = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


def _is_ours(request: Any) -> bool:
    """Whether i3dzoo sent a request; storage gets files without the name of the client."""
    accepted = request.headers.get("Accept", "")
    agent = request.headers.get("User-Agent", "")
    return f"i3dzoo/{__version__}" in agent or request.method == "PUT" or "git-lfs" in accepted


def _check_request(request: Any) -> None:
    """Send the token to the Hub only, and wait for no answer without end."""
    if not _is_ours(request):
        return
    hub = type(request.url)(huggingface_hub.HfApi().endpoint)  # without the default port
    if (request.url.scheme, request.url.netloc) != (hub.scheme, hub.netloc):
        request.headers.pop("Authorization", None)
    request.headers["Accept-Encoding"] = "identity"
    given = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {
        name: given.get(name) or seconds for name, seconds in _TIMEOUTS.items()
    }


def _check_answer(response: Any) -> None:
    """Refuse what is too large, asks to wait too long, or has another form than expected."""
    request = response.request
    if not _is_ours(request):
        return
    where = f"the Hub's answer to {request.method} {request.url.path}"
    for name, pattern in _WAITS.items():
        match = pattern.search(response.headers.get(name, ""))
        if response.is_error and match and int(match[1]) > _LONGEST_WAIT:
            raise FetchError(f"{where}: asks to wait {match[1]} s; try again then")
    if request.method == "GET" and not response.has_redirect_location:
        return  # i3dzoo reads it within its own limits
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise FetchError(f"{where}: is compressed, which was not requested")
    response.stream = _bounded(response.stream, where)
    if request.method == "POST" and response.status_code in _JSON:
        kind = form_of(unquote(request.url.path))
        if kind is not None:
            parse_json(response.read(), kind, where, error=FetchError, limit=MAX_BYTES)


def _bounded(stream: Any, where: str) -> Any:
    """Return a stream that ends with an error if it is too long or too slow."""
    base: Any = next(kind for kind in type(stream).__mro__ if kind.__name__ == "SyncByteStream")

    class Bounded(base):  # type: ignore[misc] # of the HTTP library, whichever that is
        def __iter__(self) -> Iterator[bytes]:
            count = 0
            for chunk in watch(stream, Policy()):
                count += len(chunk)
                if count > MAX_BYTES:
                    raise FetchError(f"{where}: has more than {MAX_BYTES} bytes")
                yield chunk

        def close(self) -> None:
            stream.close()

    return Bounded()
