"""The Hub's client, and what its failures are called here.

No message repeats what the client or the server says of a request, since that may hold a token or a
signed address.
"""

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from i3dzoo import __version__
from i3dzoo.errors import FetchError, I3DZooError, OfflineError, OutputError, PushError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["UnreachableError", "api", "endpoint", "is_offline", "understood"]

_BAD_TOKEN = "Invalid credentials"  # noqa: S105 - the Hub's words for a wrong token, not one
_LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


_SIGNED = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")
_FAILED = re.compile(r"'?(.+?)'? thrown while requesting \w+ (\S+)")
_AGAIN = re.compile(r"(?:Retrying in|Rate limited\. Waiting) ([\d.]+)s")
_CUT = re.compile(r"Error while downloading from (\S+?):? (.*)\nTrying to resume")
# the modules of the Hub's client that log what they ask for
_LOGGERS = ("utils._http", "file_download", "lfs", "hf_api")


class _Discreet(logging.Filter):
    """Says what the client says of its attempts in one line each, and without signatures.

    Whoever has a signed address may read or write what it names.
    """

    failed = ""

    def filter(self, record: logging.LogRecord) -> bool:
        text = _SIGNED.sub(r"\1", record.getMessage())
        if found := _FAILED.match(text):
            # what comes of it is said next: another attempt, or our own error
            self.failed = f"{urlsplit(found[2]).netloc.rpartition('@')[2]}: {found[1]}"
            return False
        if found := _AGAIN.match(text):
            text = f"{self.failed}; trying again in {float(found[1]):.0f} s"
        elif found := _CUT.match(text):
            host = urlsplit(found[1]).netloc.rpartition("@")[2]
            text = f"{host}: cut the connection ({found[2]}); going on where it was"
        record.msg, record.args = text, ()
        return True


_DISCREET = _Discreet()


class UnreachableError(FetchError):
    """The Hub does not answer, so that what is cached may be used instead."""


def api(token: str | bool | None = None) -> "HfApi":
    """Return the Hub's client; without a token it takes the one of this machine, if there is."""
    from huggingface_hub import HfApi

    for name in _LOGGERS:
        logging.getLogger(f"huggingface_hub.{name}").addFilter(_DISCREET)
    return HfApi(token=token, library_name="i3dzoo", library_version=__version__)


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def endpoint() -> str:
    """Return the host that is asked."""
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2]


@contextlib.contextmanager
def understood(where: str, failure: type[FetchError] | type[PushError]) -> Iterator[None]:
    """Turn the failures of the Hub's client into ones of i3dzoo, a sentence each.

    Args:
        where: The repository, for messages.
        failure: What those are that have no better name.

    Raises:
        FetchError: Or PushError, as `failure` says.
        UnreachableError: The Hub does not answer, in place of FetchError.
        OfflineError: HF_HUB_OFFLINE is set.
        OutputError: The cache cannot be written.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The Hub's error is one of its HTTP library and an OSError, whichever library that is.
    failures: tuple[type[BaseException], ...] = (
        *HfHubHTTPError.__bases__,
        ValueError,
        RuntimeError,
    )
    try:
        yield
    except I3DZooError:
        raise
    except HFValidationError as error:
        raise failure(f"{where}: is no name that the Hub takes; expected USER/NAME") from error
    except failures as error:
        raise _translate(where, failure, _cause(error)) from error


def _cause(error: BaseException) -> BaseException:
    """Return the failure behind one that says only that there was one."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError | ValueError | RuntimeError) and error.__cause__:
        return error.__cause__
    return error


def _translate(
    where: str, failure: type[FetchError] | type[PushError], error: BaseException
) -> I3DZooError:
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    if isinstance(error, OfflineModeIsEnabled):
        return OfflineError(f"{where}: the network is needed, and HF_HUB_OFFLINE forbids it")
    if isinstance(error, LocalEntryNotFoundError):
        return OfflineError(f"{where}: is not in the cache, and the network was not allowed")
    if isinstance(error, LocalTokenNotFoundError):
        return failure(f"{where}: the Hub wants to know who you are; {_LOG_IN}")
    if isinstance(error, HfHubHTTPError):
        return failure(f"{where}: {_reason(error)}")
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return OutputError(
            f"{error.filename}: cannot be written: {os.strerror(error.errno)}; "
            "HF_HOME chooses another place for the Hub's cache"
        )
    if isinstance(error, ValueError):
        return failure(f"{where}: the Hub's client refuses: {str(error).splitlines()[0]}")
    kind = UnreachableError if failure is FetchError else failure
    return kind(
        f"{where}: {endpoint()} cannot be reached or cut the connection ({type(error).__name__}); "
        "run the command again, and check HF_ENDPOINT and the proxies if it stays so"
    )


def _reason(error: BaseException) -> str:
    """Say what an answer of the Hub means, most precise class first."""
    from huggingface_hub import errors

    response = getattr(error, "response", None)
    status = response.status_code if response is not None else 0
    said = response.headers.get("X-Error-Message", "") if response is not None else ""
    host = endpoint()
    if _BAD_TOKEN in said:
        return f"{host} does not know the token (HTTP {status}); {_LOG_IN} with a valid one"
    if isinstance(error, errors.GatedRepoError):
        return f"is gated (HTTP {status}): ask for access on its page at {host}, then {_LOG_IN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{host} has no such repository, or it is private (HTTP {status}): check the name, "
            f"or {_LOG_IN} as someone who may read it"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no such branch, tag or commit (HTTP {status}); look at its page at {host}"
    if isinstance(error, errors.EntryNotFoundError):
        return f"has no such file (HTTP {status}); look at its page at {host}"
    meaning = {
        401: f"{host} wants to know who you are; {_LOG_IN}",
        403: "the token may not do this; one with the right to write there is needed",
        409: "something of this name exists there already",
        412: "was changed while this push ran, and nothing was pushed; look at the change, "
        "then run it again",
        429: f"{host} has had too many requests; wait a few minutes",
    }.get(status, f"{host} failed; try again later" if status >= 500 else f"{host} refused")
    return f"{meaning} (HTTP {status})"
