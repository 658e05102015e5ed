"""Mutators: damage to bytes, text, lines, documents and zip archives.

A mutator takes the content of a file and a seeded generator, and returns another content.
"""

import contextlib
import io
import json
import random
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml
from helpers import hostile

from i3dzoo.formats import tensorflow_write
from i3dzoo.formats.tensorflow_bundle import Table

Mutator = Callable[[bytes, random.Random], bytes]

STRINGS: Final = (
    "",
    " ",
    "../x",
    "/proc/self/mem",
    "/dev/zero",
    "/dev/full",
    "a\0b",
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31m",
    "\u202egnp.exe",
    "\ud800",
    "a" * 300,
    "b" * 200_000,
    "é" * 140,
    "--help",
    "-o",
    "%s%n{0}",
    "<script>alert(1)</script>",
    "[bold red]x[/]",
    "line\nline",
    "NaN",
    "~/x",
    "file:///etc/passwd",
    "http://127.0.0.1:9/x",
    "con.",
    "x.pt",
    "*",
    "null",
)
"""Texts that name other files, control a terminal, are too long, or mean something to a parser."""

_EXTREMES: Final = ("0", "-1", "1e999", "NaN", "0.001", "2000000", "20000", "200000", "2147483647",
                    "2147483648", "1000000000000", "9223372036854775807")  # fmt: skip

LITERALS: Final = (
    "0",
    "-1",
    "1",
    "-0.0",
    "1e-320",
    "1e308",
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    ".inf",
    ".nan",
    "2147483647",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "1" + "0" * 30,
    "9" * 400,
    "9" * 5000,
    "20000",
    "200000",
    "1000000000000",
    "0.5",
    "true",
    "null",
    "[]",
    "{}",
    '""',
    "[[0]]",
    "2001-99-99",
    "!!timestamp x",
    "!!python/object/apply:os.system [id]",
    "0b_",
    "0x",
    "*a",
    "&a [*a]",
    "'",
)
"""Values as a document can spell them; some are valid in one format only."""

_NUMBERS: Final = (0, 1, -1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 20, 1 << 24, (1 << 31) - 1)
_LARGE: Final = (1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_EDGE: Final = 1 << 12  # bytes at both ends of a large file, where headers are
_RAW: Final = "@raw@"  # marks a literal in a document until it is written


def damage_bytes(content: bytes, generator: random.Random) -> bytes:
    """Flip, overwrite, insert, delete, repeat or move bytes, and set fields to extreme numbers."""
    data = bytearray(content or b"\0")
    for _ in range(generator.choice((1, 1, 1, 2, 4, 12))):
        at, size = _place(len(data), generator), generator.choice((1, 2, 4, 8))
        match generator.randrange(9):
            case 0:
                data[at] ^= 1 << generator.randrange(8)
            case 1:
                data[at] = generator.choice((0, 1, 0x7F, 0x80, 0xFF, generator.randrange(256)))
            case 2 | 3:  # a field of a length, in either byte order
                number = generator.choice(_NUMBERS + _LARGE) % (1 << 8 * size)
                data[at : at + size] = number.to_bytes(size, generator.choice(("little", "big")))
            case 4:  # a piece from elsewhere
                start, size = generator.randrange(len(data)), generator.randrange(1, 64)
                data[at : at + size] = data[start : start + size]
            case 5:
                data[at:at] = generator.randbytes(generator.randrange(1, 40))
            case 6:  # a repeated block
                block = bytes(data[at : at + generator.randrange(1, 64)])
                data[at:at] = block * generator.choice((1, 2, 50, 2000))
            case 7:
                del data[at : at + generator.choice((1, 2, 4, 8, 100))]
            case _:
                if generator.random() < 0.5:
                    del data[at:]
        data = data or bytearray(b"\0")
    return bytes(data)


def _place(size: int, generator: random.Random) -> int:
    """Return a random position; most of those in a large file are near its ends."""
    if size < 20 * _EDGE or generator.random() < 0.2:
        return generator.randrange(size)
    return (generator.randrange(2 * _EDGE) - _EDGE) % size


def damage_text(content: bytes, generator: random.Random) -> bytes:
    """Replace a word of a text by a hostile text or number, or nest brackets deeply."""
    lines = content.split(b"\n")
    row = generator.randrange(len(lines))
    key, mark, value = lines[row].partition(generator.choice((b": ", b" = ", b"=", b" ")))
    match generator.randrange(8):
        case 0 | 1 | 2:
            lines[row] = key + mark + generator.choice(LITERALS).encode()
        case 3 | 4:
            text = string(generator).encode("utf-8", "surrogatepass")
            lines[row] = key + mark + generator.choice((text, b'"' + text + b'"'))
        case 5:
            pair = generator.choice((b"[]", b"{}", b'{"a":}', b"a.", b"- ", b"[["))
            lines[row] = key + mark + pair[:-1] * generator.choice((70, 1000, 50_000))
        case 6:
            lines[row] = value + mark + key
        case _:
            return damage_lines(content, generator)
    return b"\n".join(lines)


def damage_lines(content: bytes, generator: random.Random) -> bytes:
    """Drop, repeat, swap, join or replace lines of a text, or damage its bytes."""
    lines = content.split(b"\n")
    row, other = generator.randrange(len(lines)), generator.randrange(len(lines))
    match generator.randrange(9):
        case 0:
            del lines[row]
        case 1:
            lines[row:row] = [lines[row]] * generator.choice((1, 2, 100, 20_000))
        case 2:
            lines[row], lines[other] = lines[other], lines[row]
        case 3:
            lines[row : row + 2] = [b"".join(lines[row : row + 2])]
        case 4 | 5:
            text = string(generator).encode("utf-8", "surrogatepass")
            at = generator.randrange(len(lines[row]) + 1)
            lines[row] = generator.choice((text, lines[row][:at] + text, text + lines[row]))
        case 6:
            lines[row] = generator.choice((b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\xe2\x80\xa8"))
        case 7:
            lines[row] = lines[row] + b" " + generator.choice(LITERALS).encode()
        case _:
            return damage_bytes(content, generator)
    return b"\n".join(lines)


def damage_tree(document: Any, generator: random.Random) -> Any:
    """Return a copy of a plain document with one or a few values replaced, moved or nested."""
    document = json.loads(json.dumps(document))
    for _ in range(generator.choice((1, 1, 1, 2, 5))):
        nodes = [(holder, key) for holder in _holders(document) for key in _keys(holder)]
        if not nodes:
            return _value(generator)
        holder, key = generator.choice(nodes)
        match generator.randrange(10):
            case 0 | 1 | 2 | 3:
                holder[key] = _value(generator, holder[key])
            case 4:
                donor, name = generator.choice(nodes)
                with contextlib.suppress(RecursionError):
                    holder[key] = json.loads(json.dumps(donor[name]))
            case 5:
                holder[key] = [holder[key]] if generator.random() < 0.5 else {"a": holder[key]}
            case 6:
                for _ in range(generator.choice((2, 70, 400))):
                    holder[key] = [holder[key]] if generator.random() < 0.5 else {"a": holder[key]}
            case 7:
                del holder[key]
            case 8 if isinstance(holder, list):
                holder += [holder[key]] * generator.choice((1, 3, 1000))
            case _ if isinstance(holder, dict):
                holder[string(generator)] = holder.pop(key)
    return document


def _holders(document: Any) -> list[Any]:
    """Return all lists and mappings of a document; it can be nested more deeply than the stack."""
    holders = [document] if isinstance(document, dict | list) else []
    for holder in holders:
        items = holder.values() if isinstance(holder, dict) else holder
        holders += [item for item in items if isinstance(item, dict | list)]
    return holders


def _keys(holder: Any) -> list[Any]:
    return list(holder) if isinstance(holder, dict) else list(range(len(holder)))


def _value(generator: random.Random, old: Any = None) -> Any:
    """Return a value; mostly an extreme number for a number, and a hostile text for a text."""
    like = generator.random() < 0.6
    if like and type(old) in (int, float):
        return _RAW + generator.choice(_EXTREMES) + _RAW
    if (like and isinstance(old, str)) or generator.random() < 0.3:
        return string(generator)
    if generator.random() < 0.4:
        return generator.choice((None, True, False, [], {}, "", 0, -1, 1.5, [None], {"": 0}))
    return _RAW + generator.choice(LITERALS) + _RAW


def string(generator: random.Random) -> str:
    """Return a hostile text; a quarter lead to files of the user's, from any depth of folders."""
    if generator.random() < 0.25:
        name = generator.choice(("canary/notes.txt", "canary/new.txt", "escaped/x", "x"))
        return "../" * generator.randrange(1, 9) + name
    return generator.choice(STRINGS)


def _write(text: str) -> bytes:
    """Return the text with its literals written bare."""
    for quote in ('"', "'"):
        text = text.replace(quote + _RAW, "").replace(_RAW + quote, "")
    return text.replace(_RAW, "").encode("utf-8", "surrogatepass")


def damage_json(content: bytes, generator: random.Random) -> bytes:
    """Damage the tree of a JSON document; sometimes its text."""
    if generator.random() < 0.2:
        return damage_text(content, generator)
    if generator.random() < 0.05:
        return content.replace(b"{", b'{"":0,"":1,', 1) if b"{" in content else content * 2
    try:
        return _write(json.dumps(damage_tree(json.loads(content), generator), ensure_ascii=False))
    except RecursionError:
        return damage_text(content, generator)


def damage_json_lines(content: bytes, generator: random.Random) -> bytes:
    """Damage one line of JSON lines, or the lines themselves."""
    if generator.random() < 0.25:
        return damage_lines(content, generator)
    lines = content.splitlines()
    row = generator.choice((0, generator.randrange(len(lines))))
    lines[row] = damage_json(lines[row], generator)
    return b"\n".join(lines) + b"\n"


def damage_yaml(content: bytes, generator: random.Random) -> bytes:
    """Damage the tree of a YAML document; sometimes its text, or add aliases that expand."""
    choice = generator.random()
    if choice < 0.3:
        return damage_text(content, generator)
    if choice < 0.4:
        return _with_aliases(content, generator)
    document = damage_tree(yaml.safe_load(content), generator)
    try:
        return _write(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    except (RecursionError, UnicodeError, yaml.YAMLError):
        return damage_text(content, generator)


def _with_aliases(content: bytes, generator: random.Random) -> bytes:
    """Replace a value by aliases of aliases, whose expansion grows with each level."""
    depth, width = generator.choice((2, 4, 6, 9, 30)), generator.choice((2, 4, 9))
    text = "&a0 [x, x]"
    for level in range(1, depth):
        text = f"&a{level} [{text}{f', *a{level - 1}' * (width - 1)}]"
    lines = content.split(b"\n")
    row = generator.randrange(len(lines))
    key = lines[row].partition(b":")[0] or b"x"
    lines[row] = key + b": " + text.encode()
    return b"\n".join(lines)


def damage_toml(content: bytes, generator: random.Random) -> bytes:
    """Damage a line of a TOML document; sometimes nest its keys deeply."""
    if generator.random() < 0.1:
        return b"a" + b".a" * generator.choice((100, 5000, 50_000, 50_000)) + b"=1\n" + content
    return damage_text(content, generator)


def damage_zip(content: bytes, generator: random.Random) -> bytes:
    """Damage a member of a zip archive, its name or its compression; sometimes the whole bytes."""
    if generator.random() < 0.3:
        return damage_bytes(content, generator)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    row = generator.randrange(len(members))
    name, data = members[row]
    method = zipfile.ZIP_STORED
    match generator.randrange(7):
        case 0 | 1:
            members[row] = (name, damage_bytes(data, generator))
        case 2:
            members[row] = (_entry_name(name, generator), data)
        case 3:
            members.insert(row, (name, damage_bytes(data, generator)))
        case 4:
            del members[row]
        case 5:
            method = zipfile.ZIP_DEFLATED
            members[row] = (name, data + bytes(generator.choice((0, 1 << 20, 1 << 26))))
        case _:
            members += [(f"{name}{n}", b"") for n in range(generator.choice((10, 3000)))]
    return _zip(members, method)


def _entry_name(name: str, generator: random.Random) -> str:
    text = generator.choice(STRINGS).replace("\ud800", "x")[:60_000]
    return generator.choice((text, f"../../{name}", f"/{name}", name.upper(), f"{name}/"))


def _zip(members: list[tuple[str, bytes]], method: int) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # duplicated names
        for name, data in members:
            info = zipfile.ZipInfo(name or "x")
            info.compress_type = method
            archive.writestr(info, data)
    return file.getvalue()


def damage_member(member: str, mutate: Mutator) -> Mutator:
    """Return a mutator of the member of a zip archive whose name has this end."""

    def damage(content: bytes, generator: random.Random) -> bytes:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
        return _zip(
            [
                (name, mutate(data, generator) if name.endswith(member) else data)
                for name, data in members
            ],
            zipfile.ZIP_STORED,
        )

    return damage


def damage_safetensors(content: bytes, generator: random.Random) -> bytes:
    """Damage the JSON header of a safetensors file, whose length is corrected."""
    size = int.from_bytes(content[:8], "little")
    header = damage_json(content[8 : 8 + size], generator)
    return struct.pack("<Q", len(header)) + header + content[8 + size :]


def damage_description(content: bytes, generator: random.Random) -> bytes:
    """Damage the description of the network in a canonical file."""
    size = int.from_bytes(content[:8], "little")
    document = json.loads(content[8 : 8 + size])
    texts = document["__metadata__"]
    key = next(key for key, text in texts.items() if text.startswith("{"))
    texts[key] = damage_json(texts[key].encode(), generator).decode("utf-8", "replace")
    header = json.dumps(document).encode()
    return struct.pack("<Q", len(header)) + header + content[8 + size :]


def damage_index(content: bytes, generator: random.Random) -> bytes:
    """Damage an entry or the block of a TensorFlow index, whose checksums are corrected."""
    choice = generator.random()
    if choice < 0.3:
        return damage_bytes(content, generator)
    pairs = list(Table(Path("x"), content, 1 << 30).pairs())
    if choice < 0.6:
        return hostile.table(damage_bytes(tensorflow_write._block(pairs), generator))
    for _ in range(generator.choice((1, 1, 3))):
        row = generator.randrange(len(pairs))
        key, value = pairs[row]
        match generator.randrange(4):
            case 0:
                pairs[row] = (damage_bytes(key, generator)[:5000], value)
            case 1:
                pairs[row] = (key, pairs[generator.randrange(len(pairs))][1])
            case _:
                pairs[row] = (key, damage_bytes(value, generator))
    return tensorflow_write._table(pairs)


def damage_npy(content: bytes, generator: random.Random) -> bytes:
    """Damage the header of a npy file: its shape, dtype or text."""
    if generator.random() < 0.3:
        return damage_bytes(content, generator)
    if generator.random() < 0.3:
        shape = tuple(generator.choice((1, 2, 9, 300, 70_000, 300_000)) for _ in range(3))
        depth = generator.choice((2, 3))
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {(*shape, depth)}, }}\n"
        body = bytes(min(shape[0] * shape[1] * shape[2] * depth, 1 << 22))
        return content[:8] + struct.pack("<H", len(header)) + header.encode() + body
    size = int.from_bytes(content[8:10], "little")
    header = content[10 : 10 + size].decode("latin-1")
    numbers = (0, 1, -1, 3, 300_000, 1 << 31, 1 << 40, 1 << 63, "9" * 400, "1.5", "None", "'x'")
    shape = [generator.choice((1, 3, 16, *numbers)) for _ in range(generator.choice((0, 1, 4, 9)))]
    kind = generator.choice(("|u1", "<f4", "|O", "<U1000000", "|V9", "x", "<M8", "|b1"))
    match generator.randrange(4):
        case 0 | 1:
            end = header.find("}")
            start = header.find("'shape'")
            header = header[:start] + f"'shape': ({', '.join(map(str, shape))},), " + header[end:]
        case 2:
            header = header.replace("|u1", kind)
        case _:
            header = "(" * generator.choice((10, 300, 9000)) + header
    text = header.encode("latin-1")
    return content[:8] + struct.pack("<H", len(text) % 65536) + text + content[10 + size :]


_BOXES: Final = re.compile(
    b"avih|strh|strf|idx1|mvhd|tkhd|mdhd|elst|stsd|stts|stss|stsc|stsz|stco|ctts|avc1|hvc1|IHDR|"
    b"PLTE|IDAT|VP8 |VP8L|DKIF"
)
_SIZES: Final = (1, 2, 16, 300, 1000, 8192, 30_000, 65_535, 300_000, 50_000_000)
_Y4M: Final = {
    b"W": (b"1", b"2", b"0", b"-1", b"30000", b"2147483647"),
    b"H": (b"1", b"2", b"0", b"-1", b"30000", b"2147483647"),
    b"F": (b"1:2000000", b"2000000:1", b"0:0", b"1:0", b"1:1000", b"2147483647:1", b"-1:5"),
    b"C": (b"mono", b"420p16", b"444alpha", b"420jpeg", b"x"),
    b"A": (b"0:0", b"1000000:1", b"1:1000000"),
    b"X": (b"x" * 4000, b"YSCSS=420JPEG"),
}


def damage_media(content: bytes, generator: random.Random) -> bytes:
    """Set fields of the boxes and chunks of a video or an image, or damage its bytes."""
    if generator.random() < 0.4:
        return damage_bytes(content, generator)
    if content.startswith(b"YUV4MPEG2"):
        header, end, frames = content.partition(b"\n")
        words = [word for word in header.split(b" ") if generator.random() < 0.95]
        letter = generator.choice((b"F", *_Y4M))
        words = [word for word in words if not word.startswith(letter)]
        return b" ".join([*words, letter + generator.choice(_Y4M[letter])]) + end + frames
    png = content.startswith(b"\x89PNG")
    if png and generator.random() < 0.5:
        return _empty_png(generator)
    data = bytearray(content)
    tags = [match.end() for match in _BOXES.finditer(content)] or [0, 4]
    if content.startswith(b"GIF8"):
        tags = [6]  # width and height of the canvas
    for _ in range(generator.choice((1, 1, 2, 3))):
        at = generator.choice(tags) + generator.choice((0, 2, 4, 8, 12, 16, 20, 24, 28, 32, 36))
        size = generator.choice((2, 4, 4, 8))
        number = generator.choice(_NUMBERS + _LARGE + _SIZES * 2) % (1 << 8 * size)
        data[at : at + size] = number.to_bytes(size, generator.choice(("little", "big")))
    return _with_checksums(bytes(data)) if png else bytes(data)


def _empty_png(generator: random.Random) -> bytes:
    """Return a valid, small PNG of an extreme size."""
    width, height = generator.choice(_SIZES), generator.choice(_SIZES)
    rows = bytes(min((width // 8 + 2) * height, 1 << 23))
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(data)) + tag + data + bytes(4) for tag, data in chunks)
    return _with_checksums(b"\x89PNG\r\n\x1a\n" + body)


def _with_checksums(content: bytes) -> bytes:
    """Return a PNG whose chunks have the right CRC, so that their contents are read."""
    data, at = bytearray(content), 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + size > len(data):
            break
        body = bytes(data[at + 4 : at + 8 + size])
        data[at + 8 + size : at + 12 + size] = zlib.crc32(body).to_bytes(4, "big")
        at += 12 + size
    return bytes(data)
