"""Encode the few pickle opcodes that dicts of tensors need, without importing their classes."""

from collections.abc import Iterable

EMPTY_DICT = b"}"
FALSE, NONE, STOP = b"\x89", b"N", b"."


def text(value: str) -> bytes:
    """Return the opcode that pushes a string."""
    raw = value.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def integer(value: int) -> bytes:
    """Return the opcode that pushes an integer below 2^63."""
    if 0 <= value < 256:
        return b"K" + bytes([value])
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def tuple_of(items: Iterable[bytes]) -> bytes:
    """Return the opcodes that push a tuple of these items."""
    return b"(" + b"".join(items) + b"t"


def call(module: str, name: str, *arguments: bytes) -> bytes:
    """Return the opcodes that push the result of calling a function with these arguments."""
    return glob(module, name) + tuple_of(arguments) + b"R"


def glob(module: str, name: str) -> bytes:
    """Return the opcode that pushes a function or class."""
    return f"c{module}\n{name}\n".encode()


def dictionary(items: Iterable[tuple[str, bytes]]) -> bytes:
    """Return the opcodes that push a dict."""
    return EMPTY_DICT + b"(" + b"".join(text(key) + value for key, value in items) + b"u"
