"""`i3dzoo convert` between layouts, run as a user runs it."""

import json
from pathlib import Path

import pytest
import torch

from i3dzoo import convert, tables
from i3dzoo._resources import data
from i3dzoo.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.cli.convert import _default_target
from i3dzoo.errors import MappingError

from .test_cli import run

HEAD = "Logits.Conv3d_0c_1x1.conv.weight"


@pytest.fixture(scope="module")
def file(random_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A canonical file of random numbers."""
    return write_checkpoint(tmp_path_factory.mktemp("cli") / "x.safetensors", random_checkpoint)


def test_the_help_names_every_layout() -> None:
    """The help of convert has each layout, a new one too."""
    words = run("convert", "--help").stdout.replace(",", " ").replace(";", " ").split()
    assert set(tables.names()) <= set(words)


@pytest.mark.parametrize(
    ("layout", "printed"),
    [
        ("deepmind", "x.deepmind.index"),
        ("flax", "x.flax.pkl"),
        ("keras", "x.keras.h5"),
        ("keras3", "x.keras3.weights.h5"),
        ("tao", "x.tao.ckpt"),
    ],
)
def test_default_names(file: Path, tmp_path: Path, layout: str, printed: str) -> None:
    """Without DST a file gets the layout's own ending, and its path is the last line."""
    result = run("convert", file, "--to", layout, "--quiet", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{printed}\n"
    assert read_checkpoint(tmp_path / printed).metadata.num_classes == 12


def test_a_bundle_by_its_prefix(file: Path, tmp_path: Path) -> None:
    """DST may be the prefix, as TensorFlow users write it; the index is what is printed."""
    result = run("convert", file, "model.ckpt", "--to", "deepmind", "--quiet", cwd=tmp_path)
    assert result.stdout == "model.ckpt.index\n"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["model.ckpt.data-00000-of-00001", "model.ckpt.index"]
    back = run("convert", "model.ckpt", "--quiet", cwd=tmp_path)
    assert back.stdout == "model.safetensors\n"


def test_report_of_every_tensor(file: Path, tmp_path: Path) -> None:
    """The report names source, target, shape and operation of each, and why some are left out."""
    report = tmp_path / "report.json"
    arguments = ["--to", "keras", "--report", report, "--dry-run", "--quiet"]
    result = run("convert", file, tmp_path / "x.h5", *arguments)
    assert result.returncode == 0, result.stderr
    document = json.loads(report.read_text())
    assert document["tensors"][0] == {
        "source": "Conv3d_1a_7x7.conv.weight",
        "target": "Conv3d_1a_7x7_conv/kernel",
        "shape": [7, 7, 7, 3, 64],
        "operation": "-> DHWIO",
    }
    assert len(document["tensors"]) == 230
    assert len(document["ignored"]) == 57
    assert {step["operation"] for step in document["ignored"]} == {"ones, which the layout implies"}


@pytest.mark.parametrize(
    ("options", "step", "left_out"),
    [
        (["--num-classes", "3"], ["", "head fresh"], "head fresh takes its place"),
        (["--head", "drop"], None, "head drop"),
        (["--dtype", "float16"], [HEAD, "rounded to float16"], None),
    ],
)
def test_surgery_is_part_of_the_mapping(
    file: Path, tmp_path: Path, options: list[str], step: list[str] | None, left_out: str | None
) -> None:
    """No tensor that surgery made is said to be as it was, and none that it took is passed over."""
    result = run("convert", file, *options, "--dry-run", "--json", cwd=tmp_path)
    document = json.loads(result.stdout)
    made = [[each["source"], each["operation"]] for each in document["tensors"][-2:-1]]
    assert made == ([step] if step else made)
    assert any(each["target"] == HEAD for each in document["tensors"]) == (step is not None)
    gone = {each["source"]: each["operation"] for each in document["ignored"]}
    assert gone.get(HEAD) == left_out
    stem = document["tensors"][0]
    assert (stem["operation"] == "as it is") == ("--dtype" not in options)


def test_averaged_kernels_are_part_of_the_mapping(file: Path, tmp_path: Path) -> None:
    """The first convolution for another stream has its new shape and what was done to it."""
    result = run("convert", file, "--in-channels", "2", "--dry-run", "--json", cwd=tmp_path)
    stem, other = json.loads(result.stdout)["tensors"][:2]
    assert stem["shape"] == [64, 2, 7, 7, 7]
    assert stem["operation"] == "averaged over its channels"
    assert other["operation"] == "as it is"


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ("old.json", "old.json: exists already; pass --force"),
        ("no/new.json", "no/new.json: cannot be written: the folder no does not exist; create it"),
    ],
)
def test_a_report_that_cannot_be_stops_before_anything_is_written(
    file: Path, tmp_path: Path, report: str, message: str
) -> None:
    """It is refused first, so that no file is left that nobody reported."""
    (tmp_path / "old.json").write_text("mine")
    result = run("convert", file, "x.pt", "--to", "tao", "--report", report, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith(f"i3dzoo: {message}")
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]


def test_what_is_not_the_networks_is_left_out(
    random_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """A trunk within another model, behind that one's names, comes out with --ignore."""
    table = tables.table("piergiaj")
    inner = convert.from_canonical("", random_checkpoint.tensors, table).tensors
    state = {
        f"module.backbone.{name}": torch.from_numpy(array.copy())
        for name, array in inner.items()
        if not name.startswith("logits")
    }
    torch.save({**state, "module.fc.weight": torch.ones(3, 1024)}, tmp_path / "whole.pth")
    refused = run("convert", "whole.pth", "--quiet", cwd=tmp_path)
    assert refused.returncode == 1
    assert "1 that it does not know (module.fc.weight); " in refused.stderr
    assert "with --ignore" in refused.stderr
    done = run("convert", "whole.pth", "--ignore", "module.fc.*", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document["ignored"][-1]["source"] == "module.fc.weight"
    assert document["ignored"][-1]["operation"] == "as --ignore asks"
    assert read_checkpoint(tmp_path / "whole.safetensors").metadata.num_classes == 0


def test_a_head_outside_of_the_trunk(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A trunk behind other names is found beside a head that bears the layout's own."""
    table = tables.table("piergiaj")
    inner = convert.from_canonical("", random_checkpoint.tensors, table).tensors
    state = {
        name if name.startswith("logits") else f"backbone.{name}": torch.from_numpy(array.copy())
        for name, array in inner.items()
    }
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(MappingError, match=r"2 that it does not know \(logits.conv3d"):
        read_checkpoint(tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth", ignore=("logits.*",)).metadata.num_classes == 0


@pytest.mark.parametrize("target", ["x.json", "./x.json"])
def test_a_report_in_the_place_of_weights(file: Path, tmp_path: Path, target: str) -> None:
    """A report never takes the name of what it reports."""
    result = run("convert", file, target, "--report", "x.json", "--force", cwd=tmp_path)
    assert result.returncode == 2
    assert "--report and DST are both x.json; name another" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "name"), [(".", "run"), ("..", "up"), (".hid.pt", "hid"), ("up/x.y.pt", "x")]
)
def test_default_names_are_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str
) -> None:
    """A folder that is named by dots gives its own name, and no name begins with a dot."""
    folder = tmp_path / "up" / "run"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert _default_target(source, "canonical") == Path(f"{name}.safetensors")


def test_own_table_in_both_directions(file: Path, tmp_path: Path) -> None:
    """--to my.toml writes by a table of one's own, --converter my.toml reads by it."""
    own = tmp_path / "my.toml"
    text = (data("converters") / "hassony2.toml").read_text("utf-8")
    text = text.replace('also = ["", "module."]', 'also = ["backbone."]')
    own.write_text(text.replace('= "conv3d_1a_7x7"', '= "stem"'))
    there = run("convert", file, "--to", own, "--quiet", cwd=tmp_path)
    assert there.stdout == "x.my.pt\n"
    state = torch.load(tmp_path / "x.my.pt", weights_only=True)
    assert all(name.startswith("backbone.") for name in state)
    lost = run("convert", "x.my.pt", "--quiet", cwd=tmp_path)
    assert lost.returncode == 1
    assert "--converter" in lost.stderr
    back = run("convert", "x.my.pt", "y.safetensors", "--converter", own, "--quiet", cwd=tmp_path)
    assert back.returncode == 0, back.stderr
    assert read_checkpoint(tmp_path / "y.safetensors").metadata.num_classes == 12


def test_stream_of_a_joint_checkpoint(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Without --stream a joint checkpoint is refused with the way out; with it one is read."""
    table = tables.table("piergiaj")
    rgb = convert.from_canonical("", random_checkpoint.tensors, table).tensors
    state = {f"model_rgb.{name}": torch.from_numpy(array.copy()) for name, array in rgb.items()}
    state |= {name.replace("_rgb.", "_of."): tensor for name, tensor in state.items()}
    stem = "model_of.Conv3d_1a_7x7.conv3d.weight"
    state[stem] = state[stem][:, :2].clone()
    torch.save(state, tmp_path / "joint.pth")
    refused = run("convert", "joint.pth", "--quiet", cwd=tmp_path)
    assert refused.returncode == 1
    assert "choose the network to read with --stream rgb or --stream flow" in refused.stderr
    done = run("convert", "joint.pth", "--stream", "flow", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_checkpoint(tmp_path / "joint.safetensors").metadata.stream == "flow"
