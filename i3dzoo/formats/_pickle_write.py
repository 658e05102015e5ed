"""The few pickle opcodes that tensors in dicts need, so that writing them imports nothing."""

from collections.abc import Iterable

__all__ = ["call", "dictionary", "integer", "text", "tuple_of"]

EMPTY_DICT = b"}"
FALSE, NONE, STOP = b"\x89", b"N", b"."


def text(value: str) -> bytes:
    """Return the opcode that pushes a text."""
    raw = value.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def integer(value: int) -> bytes:
    """Return the opcode that pushes an integer below 2^63."""
    if 0 <= value < 256:
        return b"K" + bytes([value])
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def tuple_of(items: Iterable[bytes]) -> bytes:
    """Return the opcodes that push a tuple of what the items push."""
    return b"(" + b"".join(items) + b"t"


def call(module: str, name: str, *arguments: bytes) -> bytes:
    """Return the opcodes that push what a function gives for these arguments."""
    return glob(module, name) + tuple_of(arguments) + b"R"


def glob(module: str, name: str) -> bytes:
    """Return the opcode that pushes a function or class."""
    return f"c{module}\n{name}\n".encode()


def dictionary(items: Iterable[tuple[str, bytes]]) -> bytes:
    """Return the opcodes that push a dict."""
    return EMPTY_DICT + b"(" + b"".join(text(key) + value for key, value in items) + b"u"
