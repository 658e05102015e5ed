"""`i3dzoo convert` between layouts."""

import json
from pathlib import Path

import pytest
import torch
from helpers.checkpoints import edited_table, torch_state
from helpers.cli import call

from i3dzoo.arrays import Tensors
from i3dzoo.checkpoints import converter
from i3dzoo.checkpoints.checkpoint import read_checkpoint
from i3dzoo.cli.convert import _default_target
from i3dzoo.errors import MappingError

HEAD = "Logits.Conv3d_0c_1x1.conv.weight"


def test_the_help_names_every_layout() -> None:
    """The help of convert has each layout, a new one too."""
    words = call("convert", "--help").stdout.replace(",", " ").replace(";", " ").split()
    assert set(converter.names()) <= set(words)


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
    result = call("convert", file, "--to", layout, "--quiet", cwd=tmp_path, code=0)
    assert result.stdout == f"{printed}\n"
    assert read_checkpoint(tmp_path / printed).metadata.num_classes == 12


def test_a_bundle_by_its_prefix(file: Path, tmp_path: Path) -> None:
    """DST may be the prefix, as TensorFlow users write it; the index is what is printed."""
    result = call("convert", file, "model.ckpt", "--to", "deepmind", "--quiet", cwd=tmp_path)
    assert result.stdout == "model.ckpt.index\n"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["model.ckpt.data-00000-of-00001", "model.ckpt.index"]
    back = call("convert", "model.ckpt", "--quiet", cwd=tmp_path)
    assert back.stdout == "model.safetensors\n"


def test_report_of_every_tensor(file: Path, tmp_path: Path) -> None:
    """The report names source, target, shape and operation of each, and why some are left out."""
    report = tmp_path / "report.json"
    arguments = ["--to", "keras", "--report", report, "--dry-run", "--quiet"]
    call("convert", file, tmp_path / "x.h5", *arguments, code=0)
    document = json.loads(report.read_text())
    assert document["tensors"][0] == {
        "source": "Conv3d_1a_7x7.conv.weight",
        "target": "Conv3d_1a_7x7_conv/kernel",
        "shape": [7, 7, 7, 3, 64],
        "operation": "-> DHWIO",
    }
    assert len(document["tensors"]) == 230
    assert len(document["ignored"]) == 57
    assert {step["operation"] for step in document["ignored"]} == {"ones, as the layout implies"}


@pytest.mark.parametrize(
    ("options", "step", "left_out"),
    [
        (["--num-classes", "3"], ["", "head fresh"], "head fresh replaces it"),
        (["--head", "drop"], None, "head drop"),
        (["--dtype", "float16"], [HEAD, "rounded to float16"], None),
    ],
)
def test_surgery_is_part_of_the_mapping(
    file: Path, tmp_path: Path, options: list[str], step: list[str] | None, left_out: str | None
) -> None:
    """The mapping has what surgery did to each tensor, and which ones it left out."""
    result = call("convert", file, *options, "--dry-run", "--json", cwd=tmp_path)
    document = json.loads(result.stdout)
    made = [[each["source"], each["operation"]] for each in document["tensors"][-2:-1]]
    assert made == ([step] if step else made)
    assert any(each["target"] == HEAD for each in document["tensors"]) == (step is not None)
    gone = {each["source"]: each["operation"] for each in document["ignored"]}
    assert gone.get(HEAD) == left_out
    stem = document["tensors"][0]
    assert (stem["operation"] == "unchanged") == ("--dtype" not in options)


def test_averaged_kernels_are_part_of_the_mapping(file: Path, tmp_path: Path) -> None:
    """The first convolution for another stream has its new shape and what was done to it."""
    result = call("convert", file, "--in-channels", "2", "--dry-run", "--json", cwd=tmp_path)
    stem, other = json.loads(result.stdout)["tensors"][:2]
    assert stem["shape"] == [64, 2, 7, 7, 7]
    assert stem["operation"] == "averaged over input channels"
    assert other["operation"] == "unchanged"


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
    result = call("convert", file, "x.pt", "--to", "tao", "--report", report, cwd=tmp_path, code=1)
    assert result.stderr.startswith(f"i3dzoo: {message}")
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]


def test_what_is_not_the_networks_is_left_out(random_tensors: Tensors, tmp_path: Path) -> None:
    """A trunk within another model, behind that one's names, comes out with --ignore."""
    state = {
        f"module.backbone.{name}": tensor
        for name, tensor in torch_state(random_tensors).items()
        if not name.startswith("logits")
    }
    torch.save({**state, "module.fc.weight": torch.ones(3, 1024)}, tmp_path / "whole.pth")
    refused = call("convert", "whole.pth", "--quiet", cwd=tmp_path, code=1)
    assert "1 unknown (module.fc.weight); " in refused.stderr
    assert "with --ignore" in refused.stderr
    done = call("convert", "whole.pth", "--ignore", "module.fc.*", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document["ignored"][-1]["source"] == "module.fc.weight"
    assert document["ignored"][-1]["operation"] == "matches --ignore"
    assert read_checkpoint(tmp_path / "whole.safetensors").metadata.num_classes == 0


def test_a_head_outside_of_the_trunk(random_tensors: Tensors, tmp_path: Path) -> None:
    """A trunk behind other names is found beside a head that bears the layout's own."""
    state = {
        name if name.startswith("logits") else f"backbone.{name}": tensor
        for name, tensor in torch_state(random_tensors).items()
    }
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(MappingError, match=r"2 unknown \(logits.conv3d"):
        read_checkpoint(tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth", ignore=("logits.*",)).metadata.num_classes == 0


@pytest.mark.parametrize("target", ["x.json", "./x.json"])
def test_a_report_in_the_place_of_weights(file: Path, tmp_path: Path, target: str) -> None:
    """A report never takes the name of what it reports."""
    result = call("convert", file, target, "--report", "x.json", "--force", cwd=tmp_path, code=2)
    assert "--report and DST are both x.json" in result.stderr
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
    """--to mine.toml writes by a table of one's own, --converter mine.toml reads by it."""
    own = edited_table(tmp_path, "hassony2", 'also = ["", "module."]', 'also = ["backbone."]')
    own.write_text(own.read_text().replace('= "conv3d_1a_7x7"', '= "stem"'))
    there = call("convert", file, "--to", own, "--quiet", cwd=tmp_path)
    assert there.stdout == "x.mine.pt\n"
    state = torch.load(tmp_path / "x.mine.pt", weights_only=True)
    assert all(name.startswith("backbone.") for name in state)
    lost = call("convert", "x.mine.pt", "--quiet", cwd=tmp_path, code=1)
    assert "--converter" in lost.stderr
    call("convert", "x.mine.pt", "y.st", "--converter", own, "--quiet", cwd=tmp_path, code=0)
    assert read_checkpoint(tmp_path / "y.st").metadata.num_classes == 12


def test_stream_of_a_joint_checkpoint(random_tensors: Tensors, tmp_path: Path) -> None:
    """Without --stream a joint checkpoint is refused with the way out; with it one is read."""
    inner = torch_state(random_tensors)
    state = {f"model_{network}.{n}": t for network in ("rgb", "of") for n, t in inner.items()}
    stem = "model_of.Conv3d_1a_7x7.conv3d.weight"
    state[stem] = state[stem][:, :2].clone()
    torch.save(state, tmp_path / "joint.pth")
    refused = call("convert", "joint.pth", "--quiet", cwd=tmp_path, code=1)
    assert "choose one with --stream rgb or --stream flow" in refused.stderr
    call("convert", "joint.pth", "--stream", "flow", "--quiet", cwd=tmp_path, code=0)
    assert read_checkpoint(tmp_path / "joint.safetensors").metadata.stream == "flow"
