"""Damaged copies of files, the same for the same seed."""

import random

__all__ = ["SLACK", "mutate"]

SLACK = 100 * 2**20  # bytes that reading may take beside twice the file


def mutate(content: bytes, generator: random.Random) -> bytes:
    """Return a damaged copy of a file."""
    data = bytearray(content)
    for _ in range(generator.choice((1, 1, 1, 2, 4, 12))):
        at = generator.randrange(len(data))
        how = generator.randrange(6)
        if how == 0:
            data[at] ^= 1 << generator.randrange(8)
        elif how == 1:
            data[at] = generator.choice((0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256)))
        elif how == 2:  # a number at the edge of what fits
            size = generator.choice((2, 4, 8))
            value = generator.choice((0, 1, (1 << 8 * size) - 1, 1 << (8 * size - 1), 1 << 40))
            data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
        elif how == 3:  # a piece where another was
            start, size = generator.randrange(len(data)), generator.randrange(1, 40)
            data[at : at + size] = data[start : start + size]
        elif how == 4 and len(data) > 20:
            del data[at : at + generator.randrange(1, 9)]
        elif len(data) > 20:
            del data[at:]
        data = data or bytearray(b"\0")
    return bytes(data)
