"""Recipes, presets and layouts: list, show, copy and check."""

import json
import tomllib
from pathlib import Path

import pytest
from helpers.cli import fail, run, succeed

from i3dzoo.checkpoints import converter, presets
from i3dzoo.features import feature_preset_names
from i3dzoo.fvd.protocol import protocol_names
from i3dzoo.training.recipe import load_recipe, recipe_names

Capture = pytest.CaptureFixture[str]

PRESETS = [
    *(f"input/{name}" for name in presets.names()),
    *(f"features/{name}" for name in feature_preset_names()),
    *(f"fvd/{name}" for name in protocol_names()),
]


@pytest.mark.parametrize(
    ("group", "names"),
    [("recipes", recipe_names()), ("presets", PRESETS), ("layouts", converter.names())],
)
def test_list(capsys: Capture, group: str, names: list[str]) -> None:
    """Every one that ships is listed with its title, also without `ls`."""
    out, _ = succeed(capsys, group)
    lines = out.splitlines()[1:]
    assert set(names) <= {line.split()[0] for line in lines}
    rows = json.loads(succeed(capsys, group, "ls", "--json")[0])
    assert set(names) <= {row["name"] for row in rows}
    assert all(row["title"] for row in rows)


@pytest.mark.parametrize(
    ("group", "name", "folder"),
    [
        ("recipes", "cpu", "i3dzoo/training/recipes"),
        ("presets", "input/wlasl", "converters/presets"),
        ("presets", "fvd/styleganv", "i3dzoo/fvd/protocols"),
        ("presets", "ms-tcn", "i3dzoo/features/presets"),
        ("layouts", "hassony2", "converters"),
    ],
)
def test_copy_and_check(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, name: str,
    folder: str,
) -> None:  # fmt: skip
    """A copy is the file that ships, is what is shown, and is valid."""
    monkeypatch.chdir(tmp_path)
    (path,) = (Path(__file__).parents[2] / folder).glob(f"{name.rpartition('/')[2]}.*")
    out, _ = succeed(capsys, group, "copy", name)
    copied = Path(out.strip())
    assert copied.read_bytes() == path.read_bytes()
    assert succeed(capsys, group, "show", name)[0] == path.read_text().rstrip("\n") + "\n"
    kind = ["--kind", name.partition("/")[0] if "/" in name else "features"]
    kind = kind if group == "presets" else []
    assert "is a valid" in succeed(capsys, group, "check", copied.name, *kind)[0]
    assert "exists already; pass --force" in fail(capsys, group, "copy", name)
    shown = json.loads(succeed(capsys, group, "show", name, "--json")[0])
    checked = json.loads(succeed(capsys, group, "check", copied.name, *kind, "--json")[0])
    assert checked == {"file": copied.name, "valid": True, **shown}


@pytest.mark.parametrize(
    ("group", "name", "found", "replaced", "message"),
    [
        ("recipes", "cpu", "lr: 0.005", "lr: fast", "optim.lr: expected"),
        ("presets", "deepmind", "[rgb]", "[rbg]", "rbg"),
        ("layouts", "hassony2", '"conv3d_1a_7x7"', '"conv3d_2b_1x1"', "two rules have the source"),
    ],
)
def test_check_names_the_fault(
    capsys: Capture, tmp_path: Path, group: str, name: str, found: str, replaced: str, message: str
) -> None:
    """A file with a fault is refused with the file and the fault."""
    (suffix,) = {"recipes": [".yaml"]}.get(group, [".toml"])
    target = tmp_path / f"mine{suffix}"
    succeed(capsys, group, "copy", name, target)
    text = target.read_text()
    assert found in text
    target.write_text(text.replace(found, replaced))
    kind = ["--kind", "input"] if group == "presets" else []
    error = fail(capsys, group, "check", target, *kind)
    assert error.startswith(f"i3dzoo: {target}")
    assert message in error


def test_a_name_is_not_a_file(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`check cpu` means the file, not the recipe of this name."""
    monkeypatch.chdir(tmp_path)
    assert "there is no such file" in fail(capsys, "recipes", "check", "cpu")
    Path("cpu").write_text("loop: {epochs: 0}")
    assert "loop.epochs" in fail(capsys, "recipes", "check", "cpu")


def test_unknown_name(capsys: Capture) -> None:
    """An unknown name is refused with those that there are."""
    error = fail(capsys, "recipes", "show", "fast")
    assert "no recipe has this name; there are cpu, paper" in error
    error = fail(capsys, "presets", "show", "wlasl")
    assert "several presets have this name; use input/wlasl or features/wlasl" in error


def test_show_with_defaults(capsys: Capture) -> None:
    """The JSON of a recipe has the keys that the file leaves out."""
    shown = json.loads(succeed(capsys, "recipes", "show", "smoke", "--json")[0])
    assert shown == json.loads(json.dumps(load_recipe("smoke").to_dict()))
    assert "nesterov" in shown["optim"]


def test_preset_of_your_own(capsys: Capture, file: Path, tmp_path: Path) -> None:
    """`convert --input` takes the copy of a preset."""
    preset, target = tmp_path / "mine.toml", tmp_path / "x.safetensors"
    succeed(capsys, "presets", "copy", "input/video-features", preset)
    text = preset.read_text().replace("epsilon = 1e-5", "epsilon = 2e-5")
    assert tomllib.loads(text)["variant"]["epsilon"] == 2e-5
    preset.write_text(text)
    succeed(capsys, "convert", file, target, "--input", preset, "--quiet")
    code, out, _ = run(capsys, "info", target, "--json")
    document = json.loads(out)
    assert (code, document["variant"]["epsilon"]) == (0, 2e-5)
    assert document["history"][-1]["preset"] == "mine"
