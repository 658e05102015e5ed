"""Errors of the Hub's client, as errors of i3dzoo that say what to do.

No message repeats what the client or the server says about a request, because that can contain a
token or a signed address.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Final

from i3dzoo.errors import (
    FetchError,
    I3DZooError,
    OfflineError,
    OutputError,
    PushError,
    UnreachableError,
)
from i3dzoo.hub.client import clean, endpoint, http_library
from i3dzoo.text import shorten
from i3dzoo.transfer import LostConnectionError

_BAD_TOKEN: Final = "Invalid credentials"  # noqa: S105 - the Hub's words for a wrong token, not a token
_LOG_IN: Final = "log in with `hf auth login` or set HF_TOKEN"


@contextlib.contextmanager
def translate_errors(where: str, error: type[FetchError] | type[PushError]) -> Iterator[None]:
    """Turn the exceptions of the Hub's client into errors of i3dzoo, most of them into `error`.

    Their causes, which a traceback shows, are cleaned.
    """
    try:
        yield
    except MemoryError:
        raise
    except I3DZooError as known:
        _clean_chain(known)
        if type(known) is FetchError and error is PushError:
            raise PushError(_named(where, str(known))) from known
        raise
    except Exception as cause:  # a server that answers otherwise than the Hub makes any of them
        _clean_chain(cause)
        raise _translate(where, error, cause) from cause


def _named(where: str, text: str) -> str:
    return text if text.startswith(where) else f"{where}: {text}"


def _clean_chain(error: BaseException | None) -> None:
    """Clean the texts of an exception and of those before it."""
    while error is not None:
        texts = (clean(text) if isinstance(text, str) else text for text in error.args)
        error.args = tuple(texts)
        error = error.__cause__ or error.__context__


def _translate(
    where: str, error: type[FetchError] | type[PushError], cause: BaseException
) -> I3DZooError:
    from huggingface_hub import errors

    if isinstance(cause, errors.HFValidationError):
        return error(f"{where}: is not a valid repository name; expected USER/NAME")
    kind = UnreachableError if error is FetchError else error
    if isinstance(
        cause, errors.LocalEntryNotFoundError | ValueError | RuntimeError | LostConnectionError
    ):
        cause = cause.__cause__ or cause  # these often say only that something failed
    if isinstance(cause, I3DZooError):
        return error(_named(where, str(cause)))
    if isinstance(cause, LostConnectionError):
        return kind(f"{where}: {endpoint()} {cause}; run the command again later")
    if isinstance(cause, errors.OfflineModeIsEnabled):
        return OfflineError(f"{where}: the network is needed, and HF_HUB_OFFLINE forbids it")
    if isinstance(cause, errors.LocalEntryNotFoundError):
        return OfflineError(f"{where}: is not in the cache, and the network was not allowed")
    if isinstance(cause, errors.LocalTokenNotFoundError):
        return error(f"{where}: the Hub needs a token; {_LOG_IN}")
    if isinstance(cause, errors.HfHubHTTPError):
        return error(f"{where}: {_reason(cause)}")
    if isinstance(cause, OSError) and cause.errno is not None:
        return OutputError(
            f"{cause.filename or 'the cache'}: cannot be written: {os.strerror(cause.errno)}; "
            "HF_HOME chooses another place for the Hub's cache"
        )
    if isinstance(cause, ValueError):
        return error(
            f"{where}: the Hub's client refuses: {shorten(str(cause).partition(chr(10))[0], 200)}"
        )
    problem = type(cause).__name__
    if isinstance(cause, http_library().TransportError):
        return kind(
            f"{where}: {endpoint()} cannot be reached or cut the connection ({problem}); run the "
            "command again, and check HF_ENDPOINT and the proxies if the error persists"
        )
    problem = f"{problem}: {shorten(str(cause))}"
    return error(f"{where}: {endpoint()} does not answer as the Hub does ({problem})")


def _reason(error: Any) -> str:
    """Explain an error response of the Hub."""
    from huggingface_hub import errors

    response, host = error.response, endpoint()
    status, message = response.status_code, response.headers.get("X-Error-Message", "")
    if _BAD_TOKEN in message:
        return f"{host} rejects the token (HTTP {status}); {_LOG_IN} with a valid one"
    if isinstance(error, errors.GatedRepoError):
        return f"is gated (HTTP {status}): request access on its page at {host}, then {_LOG_IN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{host} has no such repository, or it is private (HTTP {status}): check the name, "
            f"or {_LOG_IN} as a user who may read it"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no such branch, tag or commit (HTTP {status}); see its page at {host}"
    if isinstance(error, errors.EntryNotFoundError):
        return f"has no such file (HTTP {status}); see its page at {host}"
    reason = {
        401: f"{host} needs a token; {_LOG_IN}",
        403: "the token has no permission for this; use one with write access to the repository",
        409: "something with this name exists already",
        412: "was changed during this push, and nothing was pushed; look at the change, "
        "then run the command again",
        429: f"{host} received too many requests; wait a few minutes",
    }.get(status, f"{host} failed; try again later" if status >= 500 else f"{host} refused")
    return f"{reason} (HTTP {status})"
