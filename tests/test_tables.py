"""Converter tables: every shipped one keeps the law, and a broken one is refused."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from i3dzoo import tables
from i3dzoo._resources import data
from i3dzoo.architecture import canonical_shapes
from i3dzoo.errors import ConverterError, UnknownNameError


@pytest.mark.parametrize("name", tables.names())
def test_every_table_covers_the_network(name: str) -> None:
    """Each canonical tensor has one source name or is declared absent, and none stands twice."""
    table = tables.table(name)
    targets = [rule.target for rule in table.rules] + list(table.absent)
    assert sorted(targets) == sorted(canonical_shapes(1))
    assert len({rule.source for rule in table.rules}) == len(table.rules)


def test_known_names() -> None:
    """Names that upstream files are known to have come out of the tables."""
    known = {
        "deepmind": "Mixed_5b/Branch_2/Conv3d_0a_3x3/conv_3d/w",
        "flax": "params/Mixed_5b/Branch_2~1Conv3d_0b_3x3/Conv_0/kernel",
        "piergiaj": "Mixed_5b.b2b.conv3d.weight",
    }
    for name, source in known.items():
        rules = {rule.target: rule.source for rule in tables.table(name).rules}
        assert rules["Mixed_5b.Branch_2.Conv3d_0b_3x3.conv.weight"] == source


def test_own_tables_are_read_anew(tmp_path: Path) -> None:
    """A table of the user's own is read again after it was changed; its path may be a text."""
    path = tmp_path / "mine.toml"
    text = (data("converters") / "piergiaj.toml").read_text("utf-8")
    for title in ("one", "two"):
        path.write_text(text.replace("title = ", f'title = "{title}"  # '))
        assert tables.table(str(path)).title == title
        assert tables.load_table(str(path)).title == title


def test_unknown_layout() -> None:
    """An unknown layout is refused with the names of those that exist."""
    with pytest.raises(UnknownNameError, match="no layout is called 'caffe'; there are canonical"):
        tables.table("caffe")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title =", "colour = 'red'\ntitle =", "unknown key colour"),
        ("{unit}.bn.bias", "{unit}.bn.running_mean", "two rules have the (source|target)"),
        ('layout = ["OIDHW"]', 'layout = ["WHD"]', r"layout, a list of OIDHW"),
        ('"Conv3d_2b_1x1" = "Conv3d_2b_1x1"', "", r"\[units\]: missing or unknown units"),
        ("int64-zero", "run-this", "write = 'int64-zero'"),
        ("[units]", "[units", "is no TOML"),
        ('format = "torch"', "", "format is None; expected a str"),
    ],
)
def test_broken_tables(tmp_path: Path, old: str, new: str, message: str) -> None:
    """A table that breaks the law is refused with the file, the key and what was expected."""
    text = (data("converters") / "piergiaj.toml").read_text("utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ConverterError, match=message) as caught:
        tables.load_table(path)
    assert "mine.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('rgb = "model.model_rgb."', "", r"\[joint\]: .*expected rgb and flow, which differ"),
        (
            "model.model_rgb.",
            "model.model_of.",
            r"\[joint\]: .*expected rgb and flow, which differ",
        ),
        ('"model.fc1", ', "", "and sum, a list of two layers, or no sum"),
        ("sum =", "product =", r"\[joint\]: unknown key product"),
    ],
)
def test_broken_joint(tmp_path: Path, old: str, new: str, message: str) -> None:
    """Two networks in one file need two prefixes, and the layers behind them are two."""
    text = (data("converters") / "tao.toml").read_text("utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ConverterError, match=message):
        tables.load_table(path)


def _as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_as_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_toml, value)) + "]"
    return json.dumps(value)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container within a value with every key or index of it."""
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


@pytest.mark.parametrize("wrong", [7, True, 0.5, [], {}, "", [["a"]], {"a": [1]}, ["", 1]])
def test_values_of_another_kind(tmp_path: Path, wrong: Any) -> None:
    """A value of any kind in any place is taken or refused in our words, and nothing else."""
    refused = []
    for name in ("tao", "keras"):
        document = tomllib.loads((data("converters") / f"{name}.toml").read_text("utf-8"))
        for container, key in list(_places(document)):
            kept, container[key] = container[key], wrong
            lines = [f"{json.dumps(top)} = {_as_toml(value)}" for top, value in document.items()]
            (tmp_path / "mine.toml").write_text("\n".join(lines))
            container[key] = kept
            try:
                tables.load_table(tmp_path / "mine.toml")
            except ConverterError as error:
                refused.append(str(error))
    assert len(refused) > 100
    assert all(message.startswith(f"{tmp_path / 'mine.toml'}") for message in refused)


def test_an_axis_order_of_another_rank(tmp_path: Path) -> None:
    """A kernel is not read or written as a vector."""
    text = (data("converters") / "piergiaj.toml").read_text("utf-8")
    (tmp_path / "mine.toml").write_text(text.replace('["OIDHW"]', '["1111C"]', 1))
    message = "Conv3d_1a_7x7.conv.weight has layout 1111C; expected OIDHW or DHWIO"
    with pytest.raises(ConverterError, match=message):
        tables.load_table(tmp_path / "mine.toml")


def test_own_table(tmp_path: Path) -> None:
    """A user's copy of a shipped table gives the same rules."""
    path = tmp_path / "mine.toml"
    path.write_text((data("converters") / "deepmind.toml").read_text("utf-8"))
    assert tables.load_table(path).rules == tables.table("deepmind").rules
