"""Decode text from outside, and make it safe to print."""

import codecs
import re
from collections.abc import Sequence
from typing import Final

from i3dzoo.text.redaction import redact

_LONGEST: Final = 2000  # characters of a message; a path has at most 4096, and few have over 200

_ADDRESS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:)//?(?=[^/])(.+)", re.DOTALL)  # not C:/x

# C0 without tab and line feed, DEL, C1, line separators, and the marks and overrides of direction
_UNSAFE: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def web_address(path: object) -> str | None:
    """Return the address on the web that is given as a path, or None.

    `pathlib.Path` makes one slash of two.
    """
    match = _ADDRESS.match(str(path))
    return f"{match[1]}//{match[2]}" if match else None


def printable(text: str) -> str:
    r"""Return text with `\x1b` in place of what controls a terminal or reverses the direction.

    Tabs and line feeds stay. Bytes of a file name that are not UTF-8 become `\udc80` and so on.
    Tokens and passwords are redacted.
    """
    text = redact(text)
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def shorten(text: str, length: int = 80) -> str:
    """Cut text to a length; an ellipsis stands for the rest."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def listing(names: Sequence[str], count: int = 3) -> str:
    """Return the first names of a sequence, and an ellipsis if there are more."""
    more = ["…"] if len(names) > count else []
    return ", ".join([*(shorten(name) for name in names[:count]), *more])


def message(text: str) -> str:
    """Return a message as it is shown: printable, and cut in the middle if it is very long.

    The beginning names the file, and the end says what to do.
    """
    text = redact(text)  # before it is cut
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST * 2 // 3]} … {text[-_LONGEST // 3 :]}"
    return printable(text)


def decode(data: bytes, what: str = "text", fallback: str | None = None) -> str:
    """Decode UTF-8, with or without a byte order mark, or UTF-16 with one.

    Args:
        data: The bytes of a file.
        what: What the text is, for the message.
        fallback: Encoding of text that is not UTF-8; None refuses it.

    Raises:
        UnicodeError: It is other text; the message goes after the name of the file.
    """
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        if fallback is None or utf16:
            raise UnicodeError(
                f"expected {what} in UTF-8, found other bytes at offset {error.start}; save it as "
                "UTF-8"
            ) from error
        text = data.decode(fallback)
    if "\0" in text:
        raise UnicodeError(f"expected {what} in UTF-8, found null characters; save it as UTF-8")
    return text
