"""JSON, YAML and TOML from outside become records, or one clear sentence."""

import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from helpers.unprivileged import unprivileged
from msgspec import Meta

from i3dzoo.errors import ManifestError, MetadataError, RecipeError
from i3dzoo.records import (
    Record,
    convert,
    parse_json,
    parse_toml,
    parse_yaml,
    read_json,
    read_toml,
    read_yaml,
)
from i3dzoo.text import printable

MANY = 50_000
ALIASES = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


class File(Record, frozen=True, tag_field="kind", tag="file"):
    size: Annotated[int, Meta(ge=1)]
    digest: Annotated[str, Meta(pattern="^[0-9a-f]{4}$", description="4 hexadecimal digits")] = (
        "0000"
    )


class Hub(Record, frozen=True, tag_field="kind", tag="hub"):
    name: str
    branch: str | None = None

    def __post_init__(self) -> None:
        if self.name == self.branch:
            raise ValueError(f"name and branch are both {self.name!r}; expected different ones")


class Model(Record, frozen=True):
    stream: Literal["rgb", "flow"]
    source: tuple[File | Hub, ...] = ()
    sizes: dict[str, Annotated[int, Meta(ge=1)]] = msgspec.field(default_factory=dict)
    share: Annotated[float, Meta(gt=0, le=1)] | None = None
    pair: tuple[int, int] = (0, 0)
    paths: dict[Literal["rgb", "flow"], str] = msgspec.field(default_factory=dict)


def test_a_record_is_made_of_each_format() -> None:
    """The same record comes from TOML, YAML and JSON."""
    expected = Model("rgb", (File(3), Hub("a")), {"x": 1}, 1.0)
    toml = (
        'stream = "rgb"\nshare = 1\nsizes.x = 1\n'
        '[[source]]\nkind = "file"\nsize = 3\n[[source]]\nkind = "hub"\nname = "a"\n'
    )
    yaml = (
        "stream: rgb\nshare: 1\nsizes: {x: 1}\nsource:\n- {kind: file, size: 3}\n"
        "- {kind: hub, name: a}\n"
    )
    assert parse_toml(toml, Model) == expected
    assert parse_yaml(yaml, Model) == expected
    assert parse_json(msgspec.json.encode(expected), Model) == expected


def test_a_record_is_frozen() -> None:
    """Nobody changes a record."""
    with pytest.raises(AttributeError):
        Model("rgb").stream = "flow"  # type: ignore[misc]


def test_without_a_type_the_result_is_plain_data(tmp_path: Path) -> None:
    """A type is optional."""
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2.5, null, true, "x"]}')
    assert read_json(path) == {"a": [1, 2.5, None, True, "x"]}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "stream: missing; expected 'flow' or 'rgb'"),
        ({"stream": "RGB"}, "stream: expected 'flow' or 'rgb', found 'RGB'"),
        ({"stream": 1 << 64}, "stream: expected an integer of at most 64 bits"),
        ({"stream": float("nan")}, "stream: expected a finite number, found nan"),
        ({"stream": "\ud800"}, "stream: expected Unicode, found half of a surrogate pair"),
        ({"stream": b"rgb"}, "stream: expected text or a number, found bytes"),
        ({"\ud800": {}}, '"?": expected a key in Unicode'),
        ({"straem": "rgb"}, "straem: unknown key; did you mean stream?"),
        ({"q": 1}, "q: unknown key; expected one of stream, source, sizes"),
        ([], "expected a mapping, found a list of 0"),
        ({"sizes": {"a": 1, "b c": 0}}, 'sizes."b c": expected an integer of 1 or more, found 0'),
        ({"sizes": {False: 1}}, "sizes: expected text as a key, found false"),
        ({"paths": {"x": "y"}}, "paths: expected 'flow' or 'rgb' as a key, found 'x'"),
        ({"share": 0}, "share: expected null or a number greater than 0 and of at most 1, found 0"),
        ({"pair": [1]}, "pair: expected a list of 2, found a list of 1"),
        ({"pair": [1, None]}, "pair[1]: expected an integer, found null"),
    ],
)
def test_what_does_not_fit_is_named_by_file_and_key(document: Any, message: str) -> None:
    """The error is of the caller's class; it names file, key, what was expected and found."""
    with pytest.raises(ManifestError) as error:
        convert(document, Model, "x.toml", ManifestError)
    assert str(error.value).startswith(f"x.toml: {message}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"kind": "file", "size": 0}, ".size: expected an integer of 1 or more, found 0"),
        ({"kind": "file", "size": 1.5}, ".size: expected an integer of 1 or more, found 1.5"),
        ({"kind": "file", "size": True}, ".size: expected an integer of 1 or more, found true"),
        ({"kind": "file"}, ".size: missing; expected an integer of 1 or more"),
        ({"kind": "file", "siez": 1}, ".siez: unknown key; did you mean size?"),
        ({"kind": "file", "size": 1, "digest": "x"}, ".digest: expected 4 hexadecimal digits"),
        ({"kind": "hub", "name": ["x"]}, ".name: expected text, found a list of 1"),
        ({"kind": "hub", "name": "a", "branch": "a"}, ": name and branch are both 'a'"),
        ({"kind": "web"}, ".kind: expected 'file' or 'hub', found 'web'"),
        ({}, ".kind: missing; expected 'file' or 'hub'"),
        (5, ": expected a mapping, found 5"),
    ],
)
def test_errors_in_nested_records_name_the_whole_key(source: Any, message: str) -> None:
    """A key path is written as people write it, and unions are explained by their tag."""
    text = msgspec.json.encode({"stream": "rgb", "source": [{"kind": "hub", "name": "b"}, source]})
    with pytest.raises(MetadataError) as error:
        parse_json(text, Model, "x.json")
    assert str(error.value).startswith(f"x.json: source[1]{message}")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"a": 1}, "a: unknown key; expected one of kind, size, digest"),
        ({"size": 0}, "size: expected an integer of 1 or more, found 0"),
        ({}, "size: missing; expected an integer of 1 or more"),
        ({"kind": "hub", "size": 1}, "kind: expected 'file', found 'hub'"),
    ],
)
def test_a_record_without_alternatives_needs_no_tag(document: Any, message: str) -> None:
    """A missing tag does not hide what is wrong with the other keys."""
    assert convert({"size": 3}, File) == File(3)
    with pytest.raises(MetadataError, match=rf"x: {message}"):
        convert(document, File, "x")


def test_long_values_are_shortened() -> None:
    """A message shows at most 80 characters of a value."""
    with pytest.raises(MetadataError, match=r"found 'x{78}…$"):
        convert({"stream": "x" * 999}, Model)


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_json, b"\xff", "expected JSON in UTF-8"),
        (parse_json, "", "not valid JSON"),
        (parse_json, "{1: 2}", "not valid JSON.*line 1 column 2"),
        (parse_json, "[" * MANY, "more than 64 levels"),
        (parse_json, "[" * 70 + "]" * 70, "more than 64 levels"),
        (parse_json, "9" * MANY, "limit .4300 digits"),
        (parse_json, "[1e999]", r"\[0\]: expected a finite number, found inf"),
        (parse_json, "NaN", "finite.*NaN"),
        (parse_json, "-Infinity", "finite.*-Infinity"),
        (parse_json, '{"a": {"b": 1, "b": 1}}', "the key 'b' twice"),
        (parse_json, '{"a": "\\ud800"}', "a: expected Unicode"),
        (parse_json, " " * ((16 << 20) + 1), "at most 16777216 bytes"),
        (parse_toml, b"a = '\xff'", "expected TOML in UTF-8"),
        (parse_toml, "a = ?", "not valid TOML.*line 1"),
        (parse_toml, "a = 1\na = 2", "not valid TOML"),
        (parse_toml, "a." * MANY + "a = 1", "key of more than 64 parts"),
        (parse_toml, "[" + "a . " * MANY + "a]", "key of more than 64 parts"),
        (parse_toml, "x = {" + "'a'." * MANY + "a = 1}", "key of more than 64 parts"),
        (parse_toml, '"\\"".' * MANY + "a = 1", "key of more than 64 parts"),
        (parse_toml, "a = " + "[" * MANY, "more than 64 levels"),
        (parse_toml, "a = " + "{a = " * MANY, "more than 64 levels"),
        (parse_toml, "a = " + "9" * MANY, "limit .4300 digits"),
        (parse_toml, "a = nan", "a: expected a finite number, found nan"),
        (parse_toml, "a.b = 2001-01-01", "a.b: expected text or a number, found date"),
        (parse_toml, "a = 2001-99-99", "not valid TOML"),
        (parse_yaml, b"\xff", "expected YAML in UTF-8"),
        (parse_yaml, "a: b: c", "not valid YAML: line 1, column 5"),
        (parse_yaml, "a: 1\na: 2", "the key 'a' twice"),
        (parse_yaml, ALIASES, "more than 50000 values"),
        (parse_yaml, "&a [*a]", "aliases that refer to themselves"),
        (parse_yaml, "a: &a {<<: *a}", "aliases that refer to themselves"),
        (parse_yaml, "[" * MANY, "more than 64 levels"),
        (parse_yaml, "{a: " * MANY, "more than 64 levels"),
        (parse_yaml, "- " * MANY, "more than 64 levels"),
        (parse_yaml, "9" * MANY, "a number of 50000 characters"),
        (parse_yaml, "1:" * MANY + "1", "a number of 100001 characters"),
        (parse_yaml, "[.inf]", r"\[0\]: expected a finite number"),
        (parse_yaml, "1e999", "expected a finite number"),
        (parse_yaml, "0b_", "not valid YAML"),
        (parse_yaml, "!!timestamp 2001-99-99", "not valid YAML"),
        (parse_yaml, "!!timestamp x", "not of the type that its tag names"),
        (parse_yaml, "!!bool x", "not of the type that its tag names"),
        (parse_yaml, "!!set {a}", "found set"),
        (parse_yaml, "!!python/object:os.system x", "not valid YAML.*python/object"),
        (parse_yaml, "? [a]\n: b", "unhashable key"),
        (parse_yaml, "--- 1\n--- 2", "another document"),
        (parse_yaml, '"\\ud800"', "not valid YAML|Unicode"),
        (parse_yaml, "\0", "not valid YAML"),
        (parse_yaml, "\udcff", "expected YAML in UTF-8, found other bytes"),
        (parse_yaml, " " * (1 << 20), "at most 262144 bytes"),
    ],
)  # fmt: skip
def test_hostile_text_is_refused_at_once(
    parse: Callable[..., Any], text: str | bytes, message: str
) -> None:
    """Each takes well under a second and hardly any memory."""
    parse_yaml("a")  # imports PyYAML
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(RecipeError, match=rf"^evil: .*{message}"):
        parse(text, dict[str, Any], "evil", error=RecipeError)
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 1  # with tracemalloc, which makes it ten times as slow
    assert peak < 64 << 20


def test_yaml_dates_are_text_and_exponents_numbers() -> None:
    """Where YAML 1.1 surprises, values are read as people mean them."""
    text = "{a: 2001-99-99, b: 2001-01-01, c: 1e-7, d: -2E3, e: 10, f: yes, g: 1e, h: .5}"
    assert parse_yaml(text) == {
        "a": "2001-99-99", "b": "2001-01-01", "c": 1e-7, "d": -2000.0, "e": 10, "f": True,
        "g": "1e", "h": 0.5,
    }  # fmt: skip


def test_yaml_aliases_and_merges_work_within_the_limit() -> None:
    """Honest aliases are read."""
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a") == {
        "a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1},
    }  # fmt: skip


def test_an_empty_yaml_document_is_none() -> None:
    """A file of comments holds no value."""
    assert parse_yaml("# nothing") is None


def test_64_parts_of_a_toml_key_and_dots_in_texts_are_read() -> None:
    """Only keys are limited, not text with many dots."""
    key = "a." * 60 + "a"
    text = f"{key} = 1\nb = '''\n{'a.' * 3}\n'''\nc = '{'1.2. ' * 100}'\n"
    assert parse_toml(text)["b"] == "a.a.a.\n"


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    """Files saved by Windows editors are read, in UTF-8 and in UTF-16."""
    path = tmp_path / "file"
    for read, text in ((read_json, '{"a": 1}'), (read_toml, "a = 1"), (read_yaml, "a: 1")):
        for encoding in ("utf-8-sig", "utf-16"):
            path.write_text(text, encoding)
            assert read(path) == {"a": 1}


def test_files_that_cannot_be_read_are_one_sentence(tmp_path: Path) -> None:
    """Neither pipes nor devices nor folders block or crash."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "link")
    (tmp_path / "large").write_bytes(b"[]" + b" " * 100)
    for path, message in {
        tmp_path / "nothing": "the file does not exist",
        tmp_path: "expected a file, found a folder",
        tmp_path / "pipe": "expected a regular file, found a pipe or a device",
        Path("/dev/zero"): "expected a regular file, found a pipe or a device",
        tmp_path / "link": "the file cannot be read: Too many levels",
        tmp_path / "large": "expected at most 100 bytes of JSON",
        tmp_path / "a\0b": "the file cannot be read",
    }.items():
        with pytest.raises(ManifestError) as error:
            read_json(path, error=ManifestError, limit=100)
        assert str(error.value).startswith(f"{printable(str(path))}: {message}")


def test_a_missing_permission_is_named(tmp_path: Path) -> None:
    """The system's reason is in the message."""
    path = tmp_path / "a.json"
    path.write_text("1")
    path.chmod(0)
    with unprivileged(), pytest.raises(MetadataError, match="cannot be read: Permission denied"):
        read_json(path)


def test_importing_records_imports_neither_torch_nor_numpy_nor_yaml() -> None:
    """Conversion starts fast."""
    code = "import sys, i3dzoo.records; print({'torch', 'numpy', 'yaml'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout == b"set()\n"
