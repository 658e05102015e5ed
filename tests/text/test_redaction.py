"""Secrets are found in every form in which a server can echo them."""

import base64
from urllib.parse import quote

import pytest

from i3dzoo.errors import FetchError
from i3dzoo.text import message, printable
from i3dzoo.text.redaction import hide, hide_password, redact

TOKEN = "hf_Zq8+/sEcReTtOkEn"  # noqa: S105 - what must not be shown
BASE64 = [base64.b64encode(b"x" * before + TOKEN.encode() + b"yz").decode() for before in range(5)]
ENCODED = [
    TOKEN,
    quote(TOKEN, safe=""),
    "".join(f"%{ord(character):02X}" for character in TOKEN),
    "".join(f"%{ord(character):02x}" for character in TOKEN),
    "".join(f"\\u{ord(character):04x}" for character in TOKEN),
    "".join(f"\\x{ord(character):02x}" for character in TOKEN),
    *BASE64,
    *(text.replace("+", "-").replace("/", "_") for text in BASE64),
    TOKEN[:12],  # a message that was cut
]


@pytest.fixture(autouse=True)
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token is hidden during a test."""
    monkeypatch.setattr("i3dzoo.text.redaction._patterns", {})
    hide(TOKEN)


@pytest.mark.parametrize("encoded", ENCODED)
def test_encoded_secrets(encoded: str) -> None:
    """A secret is replaced in all encodings, and the text around it stays."""
    shown = redact(f"found '{encoded}'; try again")
    assert shown.startswith("found '")
    assert shown.endswith("<hidden>'; try again")
    assert len(shown) < 45  # at most a few characters of a neighbour in base64
    assert redact(f"x{encoded}").endswith("<hidden>")


def test_all_text_that_leaves() -> None:
    """Messages, printed text and errors are redacted, even where a long text is cut."""
    for shown in (message(TOKEN), printable(TOKEN), str(FetchError(TOKEN))):
        assert shown == "<hidden>"
    for before in range(1280, 1340):
        assert "hf_Z" not in message("x" * before + TOKEN + "y" * 4000)


def test_authorization_headers() -> None:
    """An Authorization header is hidden whatever it holds; the word alone is not."""
    for header in (
        "Authorization: Bearer abc",
        "'authorization': 'Basic eHk6eg=='",
        "AUTHORIZATION=x",
    ):
        shown = redact(f"{header}, next")
        assert shown.lower().startswith(header[:14].lower())
        assert shown.endswith(("<hidden>, next", "<hidden>', next"))
    assert redact("credentials in Authorization header") == "credentials in Authorization header"


def test_passwords() -> None:
    """The password of an address is hidden; short and empty ones hide nothing else."""
    hide_password("https://user:p%40ssw0rd@host/simple")
    hide_password("https://host/simple")
    hide_password("https://[")
    hide("")
    hide("abc")
    assert redact("p@ssw0rd p%40ssw0rd abc") == "<hidden> <hidden> abc"
