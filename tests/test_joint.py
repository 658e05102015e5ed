"""Both networks of a two-stream model in one file, written and read again."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i3dzoo import formats, tables
from i3dzoo.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.convert import Conversion
from i3dzoo.errors import MappingError, OutputError
from i3dzoo.joint import join, read_networks, summing_layers, write_joint
from i3dzoo.surgery import change_stream

from .test_cli import run

# A table with a place for two networks joins by existing.
JOINT = [name for name in tables.names() if tables.table(name).joint]


@pytest.fixture(scope="module")
def rgb(random_checkpoint: Checkpoint) -> Checkpoint:
    """A network for RGB of random numbers and 12 classes."""
    return random_checkpoint


@pytest.fixture(scope="module")
def flow(rgb: Checkpoint) -> Checkpoint:
    """A network for flow with numbers of its own and the same classes."""
    flow = change_stream(rgb, 2)
    halves = {n: a if n.endswith("bn.weight") else a / 2 for n, a in flow.tensors.items()}
    return dataclasses.replace(flow, tensors=halves)


def _equal(found: Checkpoint, expected: Checkpoint) -> None:
    assert found.metadata.stream == expected.metadata.stream
    assert list(found.tensors) == list(expected.tensors)
    for name, array in expected.tensors.items():
        np.testing.assert_array_equal(found.tensors[name], array)


@pytest.mark.parametrize("layout", JOINT)
def test_round_trip(rgb: Checkpoint, flow: Checkpoint, tmp_path: Path, layout: str) -> None:
    """Both networks come back to the bit, each by its stream and both together."""
    ending = formats.FORMATS[tables.table(layout).format]
    path = write_joint(tmp_path / f"x{ending}", rgb, flow, layout)
    together = read_networks(path)
    assert len(together) == 2
    for expected, found in zip((rgb, flow), together, strict=True):
        assert found.conversion is not None
        assert found.conversion.layout == layout
        _equal(found, expected)
        _equal(read_checkpoint(path, stream=expected.metadata.stream), expected)


def test_one_network_is_read_as_one(rgb: Checkpoint, tmp_path: Path) -> None:
    """A file with one network has one."""
    (found,) = read_networks(write_checkpoint(tmp_path / "x.ckpt", rgb, "tao"))
    _equal(found, rgb)


def test_the_layers_add() -> None:
    """Linear, ReLU, linear: the sum of the logits, of either sign, to the bit."""
    weights = [torch.from_numpy(array) for array in summing_layers(7)]
    one, other = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    hidden = torch.nn.functional.linear(torch.cat([one, other], 1), weights[0], weights[1])
    found = torch.nn.functional.linear(hidden.relu(), weights[2], weights[3])
    assert torch.equal(found, one + other)
    assert (found < 0).any()
    assert (found > 0).any()


def test_names_as_taos_joint_model_has_them(
    rgb: Checkpoint, flow: Checkpoint, tmp_path: Path
) -> None:
    """What TAO strips off on loading leaves the state dict of its joint model."""
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
    """Steps name the tensor in the file that each was read from, and the layers without one."""
    read = [
        read_checkpoint(write_checkpoint(tmp_path / f"{number}.h5", each, "keras"))
        for number, each in enumerate((rgb, flow))
    ]
    joined: Conversion = join("x", *read, tables.table("tao"))
    assert len(joined.steps) == len(joined.tensors)
    assert {step.target for step in joined.steps} == set(joined.tensors)
    sources = {step.target: step.source for step in joined.steps}
    for model in ("model_rgb", "model_of"):
        assert sources[f"model.{model}.Conv3d_1a_7x7.bn.bias"] == "Conv3d_1a_7x7_bn/beta"
    assert joined.steps[-1].operation == "adds the logits of the two networks"


def _changed(checkpoint: Checkpoint, **fields: Any) -> Checkpoint:
    return dataclasses.replace(
        checkpoint, metadata=dataclasses.replace(checkpoint.metadata, **fields)
    )


def test_what_cannot_be_joined(rgb: Checkpoint, flow: Checkpoint) -> None:
    """A layout for one network, two of one stream, and logits of other classes are refused."""
    tao = tables.table("tao")
    with pytest.raises(
        MappingError, match=r"piergiaj has no place for a second.* use deepmind, tao"
    ):
        join("x", rgb, flow, tables.table("piergiaj"))
    with pytest.raises(MappingError, match="x: the networks are of rgb and rgb; expected rgb and"):
        join("x", rgb, rgb, tao)
    with pytest.raises(MappingError, match=r"heads have 12 and 3 classes.*--labels or --num-cl"):
        join("x", rgb, _changed(flow, num_classes=3, labels=None), tao)
    labels = tuple(f"other {number}" for number in range(12))
    with pytest.raises(MappingError, match="classes of the two networks have different names"):
        join("x", rgb, _changed(flow, labels=labels), tao)


def test_outputs_are_guarded(rgb: Checkpoint, flow: Checkpoint, tmp_path: Path) -> None:
    """An existing file is not written over without force."""
    path = tmp_path / "x.ckpt"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already; pass --force"):
        write_joint(path, rgb, flow)
    assert path.read_text() == "mine"


def test_joining_and_identifying_as_a_user(
    rgb: Checkpoint, flow: Checkpoint, tmp_path: Path
) -> None:
    """A joint checkpoint is written by convert --flow, and identify tells both networks of it."""
    write_checkpoint(tmp_path / "rgb.safetensors", rgb)
    write_checkpoint(tmp_path / "flow.pt", flow, "piergiaj")
    arguments = ("--flow", "flow.pt", "--to", "tao", "--quiet", "--report", "report.json")
    done = run("convert", "rgb.safetensors", "joint.ckpt", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "joint.ckpt\n"
    assert "In the TAO spec: model_type joint, num_fc 24" in done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["source"], report["flow"]["source"]) == ("rgb.safetensors", "flow.pt")
    assert len(report["tensors"]) == 2 * 344 + 4
    told = run("identify", "joint.ckpt", cwd=tmp_path)
    first, second = told.stdout.splitlines()
    assert first.startswith("joint.ckpt: tao, rgb, 12 classes: ")
    assert second.startswith("joint.ckpt: tao, flow, 12 classes: ")
    sound = run("verify", "joint.ckpt", "--stream", "flow", cwd=tmp_path)
    assert "structure: I3D, flow, 12 classes, layout tao" in sound.stdout
    same = run("verify", "joint.ckpt", "--against", "flow.pt", "--stream", "flow", cwd=tmp_path)
    assert same.returncode == 0, same.stderr
    assert "tensors: 287 same" in same.stdout
    refused = run("convert", "rgb.safetensors", "--flow", "flow.pt", "--in-channels", "3")
    assert refused.returncode == 2
    assert "each keeps its stream" in refused.stderr
