"""Requests to the Hub: the token, the endpoint, and the answers as they arrive.

Nothing of a request or of an answer is logged with the token, or with a signed address.
"""

import contextlib
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import huggingface_hub

from i3dzoo.hub.session import AGENT, guard, utils
from i3dzoo.text import message
from i3dzoo.text.redaction import hide
from i3dzoo.transfer import Answer, LostConnectionError

Token = str | bool | None  # None is the token of this machine, False is none
_ERROR_BYTES: Final = 1 << 16
_SIGNED: Final = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")
_LOGGING: Final = frozenset({"huggingface_hub", "httpx2", "httpcore2", "httpx", "httpcore"})


def api(token: Token = None) -> "huggingface_hub.HfApi":
    """Return the Hub's client; None uses the token of this machine, if there is one."""
    headers(token)
    return huggingface_hub.HfApi(token=token, **AGENT)


def clean(text: str) -> str:
    """Return text of the Hub's client or of a server without tokens and without signatures.

    The signature of an address grants access to a file.
    """
    return message(_SIGNED.sub(r"\1", text))


def _clean_record(record: logging.LogRecord) -> bool:
    record.msg, record.args = clean(record.getMessage()), ()
    if record.exc_info:
        record.exc_text = clean("".join(traceback.format_exception(*record.exc_info)))
    return True


@contextlib.contextmanager
def clean_warnings() -> Iterator[None]:
    """Clean what the Hub's client warns about while the block runs."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        warnings.warn(clean(str(warning.message)), warning.category, stacklevel=3)


def endpoint() -> str:
    """Return the host of the Hub, which HF_ENDPOINT sets."""
    return urlsplit(huggingface_hub.HfApi().endpoint).netloc.rpartition("@")[2]


def headers(token: Token) -> dict[str, str]:
    """Return the headers of a request to the Hub, with the token, and keep it out of all text."""
    guard()
    for name in [*logging.root.manager.loggerDict]:
        if name.partition(".")[0] in _LOGGING:
            logging.getLogger(name).addFilter(_clean_record)
    fields: dict[str, str] = utils().build_hf_headers(token=token, **AGENT)
    hide(fields.get("authorization", "").partition(" ")[2])
    return fields


@contextlib.contextmanager
def open_answer(url: str, token: Token, fields: Mapping[str, str]) -> Iterator[Answer]:
    """Open the answer to a GET request, with further headers; a refusal is an exception."""
    timeout = huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT
    fields = {**headers(token), "Accept-Encoding": "identity", **fields}
    with (
        _translate_lost(),
        utils().get_session().stream("GET", url, headers=fields, timeout=timeout) as response,
    ):
        if response.is_error and (response.status_code != 416 or "Range" not in fields):
            # the client would read the whole body, however long, and decompress it
            body = next(response.iter_raw(_ERROR_BYTES), b"")
            response.headers.pop("Content-Encoding", None)
            response = type(response)(
                response.status_code,
                headers=response.headers,
                content=body,
                request=response.request,
            )
            utils().hf_raise_for_status(response)
        yield Answer(response.status_code, response.headers, response.iter_raw())


@contextlib.contextmanager
def _translate_lost() -> Iterator[None]:
    """Turn what the HTTP library raises when a connection is lost into a LostConnectionError."""
    http = http_library()
    try:
        yield
    except (http.TimeoutException, http.NetworkError, http.RemoteProtocolError) as error:
        name = type(error).__name__
        raise LostConnectionError(f"{endpoint()} cut the connection ({name})") from error


def http_library() -> Any:
    """Return the module of the HTTP library that huggingface_hub uses, whichever that is."""
    from huggingface_hub.errors import HfHubHTTPError

    return sys.modules[HfHubHTTPError.__bases__[0].__module__.partition(".")[0]]
