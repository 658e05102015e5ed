"""Write and read both networks of a two-stream model in one file."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from helpers.checkpoints import assert_equal, described
from helpers.cli import call

from i3dzoo import formats
from i3dzoo.checkpoints import converter
from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.checkpoints.convert import Conversion
from i3dzoo.checkpoints.joint import join, summing_layers, write_joint
from i3dzoo.checkpoints.streams import change_stream
from i3dzoo.errors import MappingError, OutputError
from i3dzoo.fetch.find import open_networks

# A table with a place for two networks joins by existing.
JOINT = [name for name in converter.names() if converter.table(name).joint]


@pytest.fixture(scope="module")
def rgb(random_checkpoint: Checkpoint) -> Checkpoint:
    """A random RGB network with 12 classes."""
    return random_checkpoint


@pytest.fixture(scope="module")
def flow(rgb: Checkpoint) -> Checkpoint:
    """Another random network, for flow, with the same classes."""
    flow = change_stream(rgb, 2)
    halves = {n: a if n.endswith("bn.weight") else a / 2 for n, a in flow.tensors.items()}
    return dataclasses.replace(flow, tensors=halves)


@pytest.mark.parametrize("layout", JOINT)
def test_round_trip(rgb: Checkpoint, flow: Checkpoint, tmp_path: Path, layout: str) -> None:
    """Both networks are read back exactly, one at a time and together."""
    ending = formats.FORMATS[converter.table(layout).format].suffix
    path = write_joint(tmp_path / f"x{ending}", rgb, flow, layout)
    for expected, actual in zip((rgb, flow), open_networks(path), strict=True):
        assert actual.conversion is not None
        assert actual.conversion.layout == layout
        stream = expected.metadata.stream
        assert actual.metadata.stream == stream
        assert_equal(actual.tensors, expected.tensors)
        assert_equal(read_checkpoint(path, stream=stream).tensors, expected.tensors)


def test_one_network_is_read_as_one(rgb: Checkpoint, tmp_path: Path) -> None:
    """A file with one network opens as one."""
    (actual,) = open_networks(write_checkpoint(tmp_path / "x.ckpt", rgb, "tao"))
    assert actual.metadata.stream == "rgb"
    assert_equal(actual.tensors, rgb.tensors)


def test_the_layers_add() -> None:
    """Linear, ReLU, linear give the exact sum of logits of either sign."""
    weights = [torch.from_numpy(array) for array in summing_layers(7)]
    one, other = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    hidden = torch.nn.functional.linear(torch.cat([one, other], 1), weights[0], weights[1])
    actual = torch.nn.functional.linear(hidden.relu(), weights[2], weights[3])
    assert torch.equal(actual, one + other)
    assert (actual < 0).any()
    assert (actual > 0).any()


def test_names_as_taos_joint_model_has_them(
    rgb: Checkpoint, flow: Checkpoint, tmp_path: Path
) -> None:
    """Without the prefix that TAO strips, the names are those of its joint model."""
    path = write_joint(tmp_path / "x.ckpt", rgb, flow)
    content = torch.load(path, weights_only=True)["state_dict"]
    # TAO cuts the first word off every name with "model" in it
    loaded = {name.partition(".")[2]: tensor for name, tensor in content.items() if "model" in name}
    assert len(loaded) == len(content)
    alone = torch.load(write_checkpoint(tmp_path / "y.pt", rgb, "piergiaj"), weights_only=True)
    layers = {f"fc{number}.{part}" for number in (1, 2) for part in ("weight", "bias")}
    networks = {f"{model}.{name}" for model in ("model_rgb", "model_of") for name in alone}
    assert set(loaded) == networks | layers
    assert loaded["fc1.weight"].shape == (24, 24)
    assert loaded["fc2.weight"].shape == (12, 24)
    assert loaded["model_of.Conv3d_1a_7x7.conv3d.weight"].shape[1] == 2


def test_every_step_is_reported(rgb: Checkpoint, flow: Checkpoint, tmp_path: Path) -> None:
    """The mapping starts at the names in the files; the added layers have none."""
    read = [
        read_checkpoint(write_checkpoint(tmp_path / f"{number}.h5", checkpoint, "keras"))
        for number, checkpoint in enumerate((rgb, flow))
    ]
    joined: Conversion = join("x", *read, converter.table("tao"))
    assert len(joined.mapping) == len(joined.tensors)
    assert {mapped.target for mapped in joined.mapping} == set(joined.tensors)
    sources = {mapped.target: mapped.source for mapped in joined.mapping}
    for model in ("model_rgb", "model_of"):
        assert sources[f"model.{model}.Conv3d_1a_7x7.bn.bias"] == "Conv3d_1a_7x7_bn/beta"
    assert joined.mapping[-1].operation == "adds the logits of the two networks"


def test_what_cannot_be_joined(rgb: Checkpoint, flow: Checkpoint) -> None:
    """Layouts for one network, equal streams and different classes are refused."""
    tao = converter.table("tao")
    with pytest.raises(MappingError, match=r"piergiaj cannot hold two networks; use deepmind, tao"):
        join("x", rgb, flow, converter.table("piergiaj"))
    with pytest.raises(MappingError, match="an rgb and a flow network, found rgb and rgb"):
        join("x", rgb, rgb, tao)
    with pytest.raises(MappingError, match=r"heads have 12 and 3 classes.*--labels or --num-cl"):
        join("x", rgb, described(flow, num_classes=3, labels=None), tao)
    labels = tuple(f"other {number}" for number in range(12))
    with pytest.raises(MappingError, match="classes of the two networks have different names"):
        join("x", rgb, described(flow, labels=labels), tao)


def test_outputs_are_guarded(rgb: Checkpoint, flow: Checkpoint, tmp_path: Path) -> None:
    """An existing file is not overwritten without force."""
    path = tmp_path / "x.ckpt"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already; pass --force"):
        write_joint(path, rgb, flow)
    assert path.read_text() == "mine"


def test_joining_and_identifying_as_a_user(
    rgb: Checkpoint, flow: Checkpoint, tmp_path: Path
) -> None:
    """`convert --flow` writes a joint checkpoint, and `identify` shows both networks."""
    write_checkpoint(tmp_path / "rgb.safetensors", rgb)
    write_checkpoint(tmp_path / "flow.pt", flow, "piergiaj")
    arguments = ("--flow", "flow.pt", "--to", "tao", "--report", "report.json")
    done = call("convert", "rgb.safetensors", "joint.ckpt", *arguments, cwd=tmp_path, code=0)
    assert done.stdout == "joint.ckpt\n"
    assert "In the TAO spec: model_type joint, num_fc 24" in done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["source"], report["flow"]["source"]) == ("rgb.safetensors", "flow.pt")
    assert len(report["tensors"]) == 2 * 344 + 4
    told = call("identify", "joint.ckpt", cwd=tmp_path)
    first, second = told.stdout.splitlines()
    assert first.startswith("joint.ckpt#model.model_rgb: tao, rgb, 12 classes: ")
    assert second.startswith("joint.ckpt#model.model_of: tao, flow, 12 classes: ")
    sound = call("verify", "joint.ckpt", "--stream", "flow", cwd=tmp_path)
    assert "structure: I3D, flow, 12 classes, layout tao" in sound.stdout
    same = call(
        "verify", "joint.ckpt", "--against", "flow.pt", "--stream", "flow", cwd=tmp_path, code=0
    )
    assert "tensors: 287 same" in same.stdout
    refused = call("convert", "rgb.safetensors", "--flow", "flow.pt", "--in-channels", "3", code=2)
    assert "with --flow, SRC is the RGB network" in refused.stderr
