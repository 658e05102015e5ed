"""Text from outside: what is decoded, and what of it is printed."""

import pytest

from i3dzoo.errors import I3DZooError, MissingFileError, OutputError
from i3dzoo.text import decode, listing, message, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb\x07", r"a\x1b[31mb\x07"),
        ("a\x9b31mb\x7f", r"a\x9b31mb\x7f"),
        ("avi.\u202egpj", r"avi.\u202egpj"),
        ("a\u2066b\u200fc\u2028d", r"a\u2066b\u200fc\u2028d"),
        ("a\rb", r"a\x0db"),
        ("caf\udce9", r"caf\udce9"),
        ("a\tb\nc", "a\tb\nc"),
        ("Übung 中文 שלום … 🏹", "Übung 中文 שלום … 🏹"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    """What moves a cursor, sets a colour or reverses a line is shown as its code."""
    assert printable(text) == shown


def test_an_error_is_cut_and_printable() -> None:
    """A name of 9 MB in a message leaves its beginning, which names the file, and the remedy."""
    name = "\x1b[2J" + "x" * 9_000_000
    error = I3DZooError(f"a.pt: no rule matches {name}; pass --ignore")
    assert len(str(error)) < 2100
    assert str(error).startswith("a.pt: no rule matches \\x1b[2Jxxx")
    assert str(error).endswith("xxx; pass --ignore")
    assert "…" in str(error)
    for kind in (MissingFileError, OutputError):  # also builtin errors, which have their own text
        assert str(kind("a\x1bb")) == r"a\x1bb"


def test_a_message_of_usual_length_is_whole() -> None:
    """A sentence with long paths is not cut."""
    text = "x" * 2000
    assert message(text) == text


def test_a_list_of_names_has_an_ellipsis_only_if_it_is_cut() -> None:
    """Three names of three are all of them."""
    assert listing(["arm", "juggle ball", "wave"]) == "arm, juggle ball, wave"
    assert listing(["arm", "juggle ball", "wave", "x"]) == "arm, juggle ball, wave, …"
    assert listing(("x" * 9_000_000,), 1) == "x" * 79 + "…"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_what_editors_save_is_decoded(encoding: str) -> None:
    """UTF-8, and UTF-16 with its byte order mark, in both byte orders."""
    mark = "\ufeff" if encoding.endswith(("le", "be")) else ""
    assert decode(f"{mark}Übung\n".encode(encoding)) == "Übung\n"


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ("Übung".encode("latin-1"), "other bytes at offset 0"),
        ("a\nÜbung".encode("cp1252"), "other bytes at offset 2"),
        ("Übung".encode("cp932", "replace") + b"\x81", "other bytes"),
        ("Übung".encode("utf-16-le"), "other bytes at offset 0"),
        ("jump".encode("utf-16-le"), "null characters"),
        ("jump".encode("utf-32"), "null characters"),
        (b"\xff\xfea", "other bytes"),
        (b"\xff\xfe\x00\xd8", "other bytes"),
    ],
)
def test_other_encodings_are_refused(data: bytes, found: str) -> None:
    """The message says what is expected, what was found, and what to do."""
    with pytest.raises(UnicodeError, match=f"expected a list in UTF-8, found {found}.*; save it"):
        decode(data, "a list")


def test_a_fallback_is_for_text_that_is_not_unicode() -> None:
    """The official split lists may be in Latin-1."""
    assert decode(b"caf\xe9", fallback="latin-1") == "café"
    with pytest.raises(UnicodeError, match="null characters"):
        decode(b"\xe9\0", fallback="latin-1")
