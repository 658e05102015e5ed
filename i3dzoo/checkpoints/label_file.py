"""Read the class names of a file: one name a line, numbered lines, CSV or JSON."""

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from i3dzoo.errors import FormatError
from i3dzoo.files import read_text, split_lines
from i3dzoo.records import parse_json

_EXPECTED: Final = (
    "expected one name per line, lines such as `1 archery` or `1,archery`, a JSON list of names, "
    "or "
    'JSON such as {"0": "archery"}'
)
_OTHER: Final = (".yaml", ".yml", ".toml", ".xml", ".html", ".pbtxt")
_NUMBER: Final = re.compile(r"\d{1,6}", re.ASCII)
_NUMBERED: Final = re.compile(r"(\d{1,6})[.:)]?[ \t]+(\S.*)", re.ASCII)
_CSV_LINE: Final = re.compile(r'"?\d{1,6}"?[,;]', re.ASCII)
_HEADINGS: Final = ("class", "classes", "label", "labels", "name", "names")


def read_labels(path: Path) -> tuple[str, ...]:
    """Read class names in the order of the logits.

    Numbers before the names, as in UCF101's classInd.txt and in CSV, are the order, from 0 or 1.
    Text is UTF-8, or UTF-16 with a byte order mark. Spaces around a name are removed.

    Raises:
        MissingFileError: The file does not exist.
        FormatError: It has another format, no names, a blank or repeated name, or numbers that are
            not consecutive.
    """
    if path.suffix.lower() in _OTHER:
        raise FormatError(f"{path}: is a {path.suffix} file; {_EXPECTED}")
    text = read_text(path)
    start = text.lstrip()[:1]
    if not start:
        raise FormatError(f"{path}: is empty; {_EXPECTED}")
    if path.suffix.lower() == ".json" or start in ("[", "{"):
        return _of_json(path, text)
    lines = split_lines(text)
    if path.suffix.lower() == ".csv" or all(map(_CSV_LINE.match, lines)):
        return _of_csv(path, lines)
    matches = [_NUMBERED.fullmatch(line) for line in lines]
    pairs = [(int(match[1]), match[2]) for match in matches if match]
    if len(pairs) == len(lines):
        return _in_order(path, pairs, "numbers before the names")
    if 2 * len(pairs) > len(lines):
        number = matches.index(None) + 1
        raise FormatError(f"{path}: line {number} has no number, but most lines do; {_EXPECTED}")
    return _unique(path, enumerate(lines, 1))


def _of_json(path: Path, text: str) -> tuple[str, ...]:
    document: Any = parse_json(text, where=str(path), error=FormatError)
    if isinstance(document, list) and all(isinstance(name, str) for name in document):
        return _unique(path, enumerate(document, 1), "entry")
    if isinstance(document, dict) and document:
        # {"0": "archery"}, as id2label of transformers, or {"archery": 0}, as label2id
        items = list(document.items())
        if all(_NUMBER.fullmatch(key) and isinstance(name, str) for key, name in items):
            return _in_order(path, [(int(key), name) for key, name in items], "keys")
        if all(type(number) is int for number in document.values()):
            return _in_order(path, [(number, name) for name, number in items], "values")
    raise FormatError(
        f"{path}: holds other JSON; expected a list of names, or a mapping of numbers to names"
    )


def _of_csv(path: Path, lines: list[str]) -> tuple[str, ...]:
    delimiter = ";" if ";" in lines[0] and "," not in lines[0] else ","
    try:
        rows = [row for row in csv.reader(lines, strict=True, delimiter=delimiter) if row]
    except csv.Error as error:
        raise FormatError(f"{path}: is not valid CSV: {error}") from error
    widths = {len(row) for row in rows}
    if widths == {1}:
        if rows[0][0].strip().lower() in _HEADINGS:
            del rows[0]
        return _unique(path, ((number, row[0]) for number, row in enumerate(rows, 1)))
    if widths != {2}:
        raise FormatError(
            f"{path}: has rows of {' and '.join(map(str, sorted(widths)))} columns; expected an "
            "index and a name"
        )
    if not _NUMBER.fullmatch(rows[0][0].strip()):
        del rows[0]  # the names of the columns
    bad = next((row[0] for row in rows if not _NUMBER.fullmatch(row[0].strip())), None)
    if bad is not None or not rows:
        raise FormatError(f"{path}: expected an index in the first column, found {bad!r}")
    return _in_order(path, [(int(row[0]), row[1]) for row in rows], "numbers of the first column")


def _in_order(path: Path, pairs: list[tuple[int, str]], what: str) -> tuple[str, ...]:
    """Return the names in the order of their numbers, which are consecutive from 0 or 1."""
    pairs = sorted(pairs, key=lambda pair: pair[0])
    first = pairs[0][0]
    for number, (given, _) in enumerate(pairs, first):
        if given != number or first > 1:
            raise FormatError(
                f"{path}: expected {what} from 0 or 1 without gaps and repetitions, found {given}"
                f"{f' after {number - 1}' if number > first else ''}; a JSON list holds names that "
                "begin with numbers"
            )
    return _unique(path, pairs, "number")


def _unique(path: Path, names: Iterable[tuple[int, str]], what: str = "line") -> tuple[str, ...]:
    first: dict[str, int] = {}
    for number, text in names:
        name = text.strip()
        if not name:
            raise FormatError(f"{path}: {what} {number} is blank; expected a name for every class")
        if name in first:
            raise FormatError(
                f"{path}: {what} {number} repeats {name!r} of {what} {first[name]}; expected a "
                "different name for every class"
            )
        first[name] = number
    if not first:
        raise FormatError(f"{path}: has no names; {_EXPECTED}")
    return tuple(first)
