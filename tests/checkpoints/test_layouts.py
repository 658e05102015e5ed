"""Every layout through files: exact round trips, streams and custom tables."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.checkpoints import (
    WRITTEN,
    assert_equal,
    described,
    detect,
    edited_table,
    read_foreign,
    to_layout,
    torch_state,
)

from i3dzoo import formats
from i3dzoo.arrays import Tensors
from i3dzoo.checkpoints import convert, converter
from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.checkpoints.metadata import default_input
from i3dzoo.checkpoints.streams import change_dtype
from i3dzoo.errors import ConverterError, FormatError, MappingError, OutputError

STEM = "Conv3d_1a_7x7.conv.weight"


def _file(folder: Path, layout: str) -> Path:
    return folder / f"x{formats.FORMATS[converter.table(layout).format].suffix}"


@pytest.fixture(scope="module")
def flow_trunk(random_checkpoint: Checkpoint) -> Checkpoint:
    """A flow network without a head."""
    tensors = {
        name: array[:, :2] if name == STEM else array
        for name, array in random_checkpoint.tensors.items()
        if not name.startswith("Logits")
    }
    trunk = dataclasses.replace(random_checkpoint, tensors=tensors)
    return described(trunk, stream="flow", num_classes=0, labels=None, input=default_input("flow"))


@pytest.mark.parametrize("what", ["random_checkpoint", "flow_trunk"])
@pytest.mark.parametrize("layout", WRITTEN)
def test_round_trip_through_files(
    request: pytest.FixtureRequest, tmp_path: Path, layout: str, what: str
) -> None:
    """A file of each layout is detected and read back exactly."""
    checkpoint: Checkpoint = request.getfixturevalue(what)
    path = write_checkpoint(_file(tmp_path, layout), checkpoint, layout)
    back = read_checkpoint(path)
    assert back.conversion is not None
    assert back.conversion.layout == layout
    assert_equal(back.tensors, checkpoint.tensors)


@pytest.mark.parametrize("layout", WRITTEN)
def test_half_precision(random_checkpoint: Checkpoint, tmp_path: Path, layout: str) -> None:
    """Every layout keeps float16."""
    half = change_dtype(random_checkpoint, "float16")
    back = read_foreign(write_checkpoint(_file(tmp_path, layout), half, layout))
    assert back.layout == layout
    assert {array.dtype for array in back.tensors.values()} == {np.dtype("f2")}


@pytest.mark.parametrize("layout", ["flax", "keras", "keras3"])
def test_bfloat16_is_refused_where_readers_do_not_know_it(
    random_checkpoint: Checkpoint, tmp_path: Path, layout: str
) -> None:
    """A dtype that readers of the layout lack is refused, and no file is left."""
    checkpoint = change_dtype(random_checkpoint, "bfloat16")
    with pytest.raises(OutputError, match=r"has dtype bfloat16, which .* float32 checkpoint"):
        write_checkpoint(_file(tmp_path, layout), checkpoint, layout)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("prefix", "steps"), [("", False), ("module.", True)])
@pytest.mark.parametrize("layout", ["piergiaj", "hassony2"])
def test_variants_of_state_dicts(
    random_tensors: Tensors, tmp_path: Path, layout: str, prefix: str, steps: bool
) -> None:
    """num_batches_tracked and DataParallel's prefix are optional."""
    state = {
        prefix + name: tensor
        for name, tensor in torch_state(random_tensors, layout).items()
        if steps or not name.endswith("num_batches_tracked")
    }
    torch.save(state, tmp_path / "x.pt")
    back = read_foreign(tmp_path / "x.pt")
    assert back.layout == layout
    assert len(back.ignored) == (57 if steps else 0)


def _joint(random_tensors: Tensors, start: str = "") -> dict[str, torch.Tensor]:
    """A joint TAO state dict; the values of the flow network are half."""
    halves = {n: a if ".bn.w" in n else a / 2 for n, a in random_tensors.items()}
    flow = {**halves, STEM: halves[STEM][:, :2]}
    state = {f"{start}fc{n}.{part}": torch.zeros(3) for n in (1, 2) for part in ("weight", "bias")}
    for network, tensors in (("model_rgb", random_tensors), ("model_of", flow)):
        state |= {f"{start}{network}.{n}": tensor for n, tensor in torch_state(tensors).items()}
    return state


def test_plain_joint_state_dict(random_tensors: Tensors) -> None:
    """The state dict of a joint model without Lightning's prefix is read too."""
    state = {name: tensor.numpy() for name, tensor in _joint(random_tensors).items()}
    table = detect(state)
    assert table.name == "tao"
    flow = convert.to_canonical("x", state, table, "flow")
    assert convert.stream_of(flow.tensors) == "flow"


def test_joint_checkpoint(random_tensors: Tensors, tmp_path: Path) -> None:
    """A joint TAO checkpoint needs a stream to be read."""
    path = tmp_path / "joint.ckpt"
    torch.save({"state_dict": _joint(random_tensors, "model."), "epoch": 3}, path)
    with pytest.raises(MappingError, match=r"found rgb under .* flow under .*--stream rgb or"):
        read_checkpoint(path)
    rgb, flow = (read_checkpoint(path, stream=stream) for stream in ("rgb", "flow"))
    bias = "Conv3d_2b_1x1.bn.bias"
    np.testing.assert_array_equal(rgb.tensors[bias], random_tensors[bias])
    np.testing.assert_array_equal(flow.tensors[bias], random_tensors[bias] / 2)
    assert (rgb.metadata.stream, flow.metadata.stream) == ("rgb", "flow")
    assert rgb.conversion is not None
    reasons = {step.operation for step in rgb.conversion.ignored}
    assert any("other stream" in reason for reason in reasons)
    assert any("mixes the logits" in reason for reason in reasons)


def test_two_scopes_in_one_bundle(random_tensors: Tensors, flow_trunk: Checkpoint) -> None:
    """A checkpoint with DeepMind's two scopes needs a stream to be read."""
    both = {**to_layout(random_tensors), **to_layout(flow_trunk.tensors)}
    flow = convert.to_canonical("x", both, converter.table("deepmind"), "flow")
    assert convert.stream_of(flow.tensors) == "flow"
    assert len(flow.ignored) == 230


def test_the_wrong_stream_is_refused(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Reading the flow network of an RGB file is an error."""
    path = write_checkpoint(tmp_path / "x.pt", random_checkpoint, "piergiaj")
    assert read_checkpoint(path, stream="rgb").metadata.stream == "rgb"
    with pytest.raises(MappingError, match="expected a network for flow, found one for rgb"):
        read_checkpoint(path, stream="flow")


def test_tao_strips_to_piergiaj(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """TAO's renaming on loading gives piergiaj's names."""
    path = write_checkpoint(tmp_path / "x.ckpt", random_checkpoint, "tao")
    content = torch.load(path, weights_only=True)
    assert {"state_dict", "pytorch-lightning_version"} <= set(content)
    loaded = {name.partition(".")[2] for name in content["state_dict"]}
    assert loaded == set(to_layout(random_checkpoint.tensors, "piergiaj"))


@pytest.mark.parametrize("layout", ["piergiaj", "hassony2"])
def test_torch_loads_what_is_written(
    random_checkpoint: Checkpoint, tmp_path: Path, layout: str
) -> None:
    """torch.load, mapped or not, loads the tensors that were written."""
    path = write_checkpoint(tmp_path / "x.pt", random_checkpoint, layout)
    for mmap in (True, False):
        state = torch.load(path, weights_only=True, mmap=mmap)
        loaded = {name: tensor.numpy() for name, tensor in state.items()}
        assert_equal(loaded, to_layout(random_checkpoint.tensors, layout))


def test_own_table_in_both_directions(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A custom table reads and writes by its path."""
    own = edited_table(tmp_path, "piergiaj", 'also = ["", "module."]', 'also = ["net."]')
    path = write_checkpoint(tmp_path / "x.pt", random_checkpoint, str(own))
    assert all(name.startswith("net.") for name in torch.load(path, weights_only=True))
    assert_equal(read_checkpoint(path, converter=own).tensors, random_checkpoint.tensors)
    with pytest.raises(ConverterError, match=r"none\.toml: the file does not exist"):
        write_checkpoint(tmp_path / "y.pt", random_checkpoint, str(tmp_path / "none.toml"))


def test_a_format_that_is_only_read(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A table for ONNX only reads."""
    own = edited_table(tmp_path, "piergiaj", 'format = "torch"', 'format = "onnx"')
    with pytest.raises(OutputError, match="reads files of format onnx"):
        write_checkpoint(tmp_path / "x.onnx", random_checkpoint, str(own))


def test_a_keras_model_within_a_model(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A Keras model that is a layer of another model is read by its own names."""
    h5py = pytest.importorskip("h5py")
    flat = write_checkpoint(tmp_path / "flat.h5", random_checkpoint, "keras")
    with h5py.File(flat) as file, h5py.File(tmp_path / "nested.h5", "w") as other:
        base = other.create_group("i3d")
        weights = []
        for layer in file.attrs["layer_names"]:
            file.copy(file[layer][layer], base, layer)
            weights += list(file[layer].attrs["weight_names"])
        base.attrs["weight_names"] = [np.bytes_(weight) for weight in weights]
        top = other.create_group("dense")
        top.attrs["weight_names"] = [b"dense/kernel:0", b"dense/bias:0"]
        top["dense/kernel:0"], top["dense/bias:0"] = np.ones((12, 3), "f4"), np.zeros(3, "f4")
        other.attrs["layer_names"] = [b"i3d", b"dense"]
    with pytest.raises(MappingError, match=r"dense/kernel, dense/bias\); .*with --ignore"):
        read_checkpoint(tmp_path / "nested.h5")
    back = read_checkpoint(tmp_path / "nested.h5", ignore=("dense/*",))
    assert_equal(back.tensors, random_checkpoint.tensors)
    assert back.conversion is not None
    assert {step.operation for step in back.conversion.ignored} == {"matches --ignore"}


@pytest.mark.parametrize("suffix", [".tlt", ".etlt", ".pth"])
@pytest.mark.parametrize("content", [b"\0\0\0\0\x8f\x12\x9b" * 20, b"PK\x03\x04" + b"\x9b" * 99])
def test_encrypted_tao_files(tmp_path: Path, suffix: str, content: bytes) -> None:
    """The error for an encrypted TAO file, or state dict in a Lightning file, has the remedy."""
    path = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict_encrypted": True, "state_dict": content}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(FormatError, match=r"that NVIDIA TAO encrypted.*export it unencrypted"):
        formats.read(path)


def test_an_unencrypted_tlt_is_read(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """An unencrypted file is read whatever its extension."""
    path = write_checkpoint(tmp_path / "model.tlt", random_checkpoint, "tao")
    assert read_checkpoint(path).metadata.num_classes == 12
