"""Converter tables: shipped ones are bijections, and malformed ones are refused."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.checkpoints import edited_table

from i3dzoo.checkpoints import converter
from i3dzoo.errors import ConverterError, UnknownNameError
from i3dzoo.network.architecture import canonical_shapes
from i3dzoo.resources import data


@pytest.mark.parametrize("name", [*converter.names(), *converter.names("images")])
def test_every_table_covers_the_network(name: str) -> None:
    """Each canonical tensor has one source name or is declared absent."""
    table = converter.table(name)
    targets = [rule.target for rule in table.rules] + list(table.absent)
    assert sorted(targets) == sorted(canonical_shapes(1))
    assert len({rule.source for rule in table.rules}) == len(table.rules)


def test_known_names() -> None:
    """The tables give known names of upstream files."""
    known = {
        "deepmind": "Mixed_5b/Branch_2/Conv3d_0a_3x3/conv_3d/w",
        "flax": "params/Mixed_5b/Branch_2~1Conv3d_0b_3x3/Conv_0/kernel",
        "piergiaj": "Mixed_5b.b2b.conv3d.weight",
    }
    for name, source in known.items():
        rules = {rule.target: rule.source for rule in converter.table(name).rules}
        assert rules["Mixed_5b.Branch_2.Conv3d_0b_3x3.conv.weight"] == source


def test_own_tables_are_read_anew(tmp_path: Path) -> None:
    """A custom table is read again after a change; its path may be a string."""
    for title in ("one", "two"):
        path = str(edited_table(tmp_path, "piergiaj", "title = ", f'title = "{title}"  # '))
        assert converter.table(path).title == title
        assert converter.load_table(path).title == title


def test_unknown_layout() -> None:
    """The error for an unknown layout lists the known ones."""
    with pytest.raises(UnknownNameError, match="the name 'caffe'; expected one of canonical"):
        converter.table("caffe")


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("piergiaj", "title =", "colour = 'red'\ntitle =", "colour: unknown key"),
        (
            "piergiaj",
            "{unit}.bn.bias",
            "{unit}.bn.running_mean",
            "two rules have the (source|target)",
        ),
        ("piergiaj", 'source = "{unit}.bn.bias"', 'source = "bn.bias"', r"\[2\]: .*\{unit\}"),
        ("piergiaj", '["OIDHW"]', '["WHD"]', r"tensor\[0\].layout\[0\]: .*found 'WHD'"),
        ("piergiaj", '"Conv3d_2b_1x1" = "Conv3d_2b_1x1"', "", "unknown units: Conv3d_2b"),
        ("piergiaj", "int64-zero", "run-this", r"ignore\[0\].write: expected null or 'int64-zero'"),
        ("piergiaj", "[units]", "[units", "is not valid TOML"),
        ("piergiaj", 'format = "torch"', "", "format: missing; expected text"),
        ("piergiaj", '"torch"', '"caffe"', "format is 'caffe'; expected one of tensorflow"),
        ("piergiaj", '["OIDHW"]', '["1111C"]', "conv.weight: layout is 1111C; expected OIDHW or D"),
        ("keras", '  "Conv3d_2b_1x1_bn",\n', "", "order: has no position for Conv3d_2b_1x1_bn/b"),
        ("tao", 'rgb = "model.model_rgb."', "", "joint.rgb: missing; expected text"),
        ("tao", "model.model_rgb.", "model.model_of.", "joint: rgb and flow are both 'model.model"),
        ("tao", '"model.fc1", ', "", "joint.sum: expected null or a list of 2, found a list of 1"),
        ("tao", "sum =", "product =", "joint.product: unknown key"),
    ],
)
def test_broken_tables(tmp_path: Path, table: str, old: str, new: str, message: str) -> None:
    """The error for a malformed table has the file, the key and what was expected."""
    with pytest.raises(ConverterError, match=rf"mine\.toml.*{message}"):
        converter.load_table(edited_table(tmp_path, table, old, new))


def _as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_as_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_as_toml, value)) + "]"
    return json.dumps(value)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container in a value with each of its keys or indices."""
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


@pytest.mark.parametrize("wrong", [7, True, 0.5, [], {}, "", [["a"]], {"a": [1]}, ["", 1]])
def test_values_of_another_kind(tmp_path: Path, wrong: Any) -> None:
    """A value of any type in any place is accepted or raises a ConverterError."""
    refused = []
    for name in ("tao", "keras"):
        document = tomllib.loads((data("converters") / f"{name}.toml").read_text("utf-8"))
        for container, key in list(_places(document)):
            kept, container[key] = container[key], wrong
            lines = [f"{json.dumps(top)} = {_as_toml(value)}" for top, value in document.items()]
            (tmp_path / "mine.toml").write_text("\n".join(lines))
            container[key] = kept
            try:
                converter.load_table(tmp_path / "mine.toml")
            except ConverterError as error:
                refused.append(str(error))
    assert len(refused) > 100
    assert all(message.startswith(f"{tmp_path / 'mine.toml'}") for message in refused)


def test_own_table(tmp_path: Path) -> None:
    """A custom copy of a shipped table has the same rules."""
    path = edited_table(tmp_path, "deepmind")
    assert converter.load_table(path).rules == converter.table("deepmind").rules
