r"""Keep tokens and passwords out of everything that is printed.

Whoever uses a secret hides it first. `i3dzoo.text` then redacts all text on its way out: messages,
results, and tracebacks. A server that echoes a secret can encode it, so a secret is found in
percent-encoding, in \x and \u escapes, and in base64 of anything that has it inside; also if a
message was cut within it.
"""

import base64
import re
from typing import Final
from urllib.parse import unquote, urlsplit

_HIDDEN: Final = "<hidden>"
_SHORTEST: Final = 4  # characters of a secret; shorter ones occur in any text
_ENOUGH: Final = 8  # characters by which a secret is known if the rest is missing
_HEADER: Final = re.compile(
    r"""(authorization["']?\s*[:=]\s*(?:b?["'])?)[^\s"',]+(?: [^\s"',]+)?""", re.I
)
_patterns: Final[dict[str, re.Pattern[str]]] = {}


def hide(secret: str) -> None:
    """Remember a secret; from now on it is not printed."""
    if len(secret) >= _SHORTEST and secret not in _patterns:
        _patterns[secret] = re.compile("|".join([_escaped(secret), *_in_base64(secret)]))


def hide_password(url: str) -> None:
    """Remember the password in an address, if it has one."""
    try:
        hide(unquote(urlsplit(url).password or ""))
    except ValueError:
        """It is not an address."""


def redact(text: str) -> str:
    """Return text without the secrets that were remembered, and without Authorization headers."""
    for pattern in [*_patterns.values()]:
        text = pattern.sub(_HIDDEN, text)
    return _HEADER.sub(rf"\1{_HIDDEN}", text)


def _escaped(secret: str) -> str:
    """Return a pattern of a secret of which any character may be escaped."""
    characters = [
        re.escape(character)
        + "".join(rf"|(?i:{escape}{byte:02x})" for escape in ("%", r"\\x", r"\\u00"))
        if (byte := ord(character)) < 0x100
        else re.escape(character)
        for character in secret[:_ENOUGH]
    ]
    rest = r"[\w%\\.~+/=-]*" if len(secret) >= _ENOUGH else ""
    return "".join(f"(?:{character})" for character in characters) + rest


def _in_base64(secret: str) -> list[str]:
    """Return patterns of the base64 of a text that has a secret inside, in both alphabets."""
    patterns = []
    data = secret.encode()
    for before in range(3):  # bytes before the secret, in its first group of three
        code = base64.b64encode(bytes(before) + data).decode()
        own = code[-(-8 * before // 6) : 8 * (before + len(data)) // 6]  # without the neighbours
        if len(own) >= _ENOUGH:
            start = re.escape(own[:_ENOUGH]).replace(r"\+", "[+-]").replace("/", "[/_]")
            patterns.append(rf"{start}[A-Za-z0-9+/_=%-]*")
    return patterns
