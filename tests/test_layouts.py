"""Every layout through files: round trips to the bit, and what tables say of streams."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i3dzoo import convert, formats, tables
from i3dzoo._resources import data
from i3dzoo.arrays import Tensors
from i3dzoo.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.errors import ConverterError, FormatError, MappingError, OutputError
from i3dzoo.metadata import default_input

# A table that is added joins every test here; those of formats that are only read stay out.
WRITABLE = [name for name in tables.names() if tables.table(name).format != "onnx"]


def _file(folder: Path, layout: str) -> Path:
    return folder / f"x{formats.FORMATS[tables.table(layout).format]}"


def _read(path: Path) -> convert.Conversion:
    """Read and convert a file, without asking which published checkpoint it is."""
    container = formats.read(path)
    table = convert.detect(str(path), container.tensors, tables.likely(container.format))
    return convert.to_canonical(str(path), container.tensors, table)


@pytest.fixture(scope="module")
def flow_trunk(random_checkpoint: Checkpoint) -> Checkpoint:
    """A flow network without a head."""
    stem = "Conv3d_1a_7x7.conv.weight"
    tensors = {
        name: array[:, :2] if name == stem else array
        for name, array in random_checkpoint.tensors.items()
        if not name.startswith("Logits")
    }
    metadata = dataclasses.replace(
        random_checkpoint.metadata,
        stream="flow",
        num_classes=0,
        labels=None,
        input=default_input("flow"),
    )
    return Checkpoint(tensors, metadata)


@pytest.mark.parametrize("what", ["random_checkpoint", "flow_trunk"])
@pytest.mark.parametrize("layout", WRITABLE)
def test_round_trip_through_files(
    request: pytest.FixtureRequest, tmp_path: Path, layout: str, what: str
) -> None:
    """Canonical to a file of the layout and back is the same to the bit, and recognised."""
    checkpoint: Checkpoint = request.getfixturevalue(what)
    path = write_checkpoint(_file(tmp_path, layout), checkpoint, layout)
    back = read_checkpoint(path)
    assert back.conversion is not None
    assert back.conversion.layout == layout
    assert list(back.tensors) == list(checkpoint.tensors)
    for name, array in checkpoint.tensors.items():
        np.testing.assert_array_equal(back.tensors[name], array)
        assert back.tensors[name].dtype == array.dtype


@pytest.mark.parametrize("layout", WRITABLE)
def test_half_precision(random_checkpoint: Checkpoint, tmp_path: Path, layout: str) -> None:
    """Float16 survives in every layout."""
    half = {name: array.astype("f2") for name, array in random_checkpoint.tensors.items()}
    checkpoint = dataclasses.replace(random_checkpoint, tensors=half)
    back = _read(write_checkpoint(_file(tmp_path, layout), checkpoint, layout))
    assert back.layout == layout
    assert {array.dtype for array in back.tensors.values()} == {np.dtype("f2")}


@pytest.mark.parametrize("layout", ["flax", "keras", "keras3"])
def test_bfloat16_is_refused_where_readers_do_not_know_it(
    random_checkpoint: Checkpoint, tmp_path: Path, layout: str
) -> None:
    """A dtype that the layout's readers lack is refused, and nothing is left behind."""
    import ml_dtypes

    tensors = {name: a.astype(ml_dtypes.bfloat16) for name, a in random_checkpoint.tensors.items()}
    checkpoint = dataclasses.replace(random_checkpoint, tensors=tensors)
    with pytest.raises(OutputError, match=r"has dtype bfloat16, which .* float32 checkpoint"):
        write_checkpoint(_file(tmp_path, layout), checkpoint, layout)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("prefix", "steps"), [("", False), ("module.", True)])
def test_variants_of_state_dicts(
    random_checkpoint: Checkpoint, tmp_path: Path, prefix: str, steps: bool
) -> None:
    """With or without num_batches_tracked, with or without DataParallel's prefix."""
    for layout in ("piergiaj", "hassony2"):
        table = tables.table(layout)
        tensors = convert.from_canonical("", random_checkpoint.tensors, table).tensors
        state = {
            prefix + name: torch.from_numpy(np.ascontiguousarray(array))
            for name, array in tensors.items()
            if steps or not name.endswith("num_batches_tracked")
        }
        torch.save(state, tmp_path / "x.pt")
        back = _read(tmp_path / "x.pt")
        assert back.layout == layout
        assert len(back.ignored) == (57 if steps else 0)


def _joint(random_tensors: Tensors, lightning: bool) -> dict[str, Any]:
    """The state dict of a joint TAO model of both streams; the flow network's numbers are half."""
    flow = {name: array / 2 for name, array in random_tensors.items() if ".bn.w" not in name}
    flow |= {name: array for name, array in random_tensors.items() if ".bn.w" in name}
    flow["Conv3d_1a_7x7.conv.weight"] = flow["Conv3d_1a_7x7.conv.weight"][:, :2]
    start = "model." if lightning else ""
    state = {f"{start}fc{n}.{part}": torch.zeros(3) for n in (1, 2) for part in ("weight", "bias")}
    for name, tensors in (("model_rgb", random_tensors), ("model_of", flow)):
        converted = convert.from_canonical("", tensors, tables.table("piergiaj")).tensors
        for key, array in converted.items():
            state[f"{start}{name}.{key}"] = torch.from_numpy(np.ascontiguousarray(array))
    return {"state_dict": state, "epoch": 3} if lightning else state


def test_plain_joint_state_dict(random_tensors: Tensors) -> None:
    """The names of a joint model's own state dict are known too."""
    state = {name: tensor.numpy() for name, tensor in _joint(random_tensors, False).items()}
    everything = map(tables.table, tables.names())
    table = convert.detect("x", state, everything)
    assert table.name == "tao"
    flow = convert.to_canonical("x", state, table, "flow")
    assert convert.stream(flow.tensors) == "flow"


def test_joint_checkpoint(random_tensors: Tensors, tmp_path: Path) -> None:
    """Of a joint TAO checkpoint the stream that is asked for is read, and none is guessed."""
    path = tmp_path / "joint.ckpt"
    torch.save(_joint(random_tensors, True), path)
    with pytest.raises(MappingError, match=r"holds rgb under .* flow under .*--stream rgb or"):
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
    """DeepMind's two scopes in one checkpoint are told apart in the same way."""
    table = tables.table("deepmind")
    both = {
        **convert.from_canonical("", random_tensors, table).tensors,
        **convert.from_canonical("", flow_trunk.tensors, table).tensors,
    }
    flow = convert.to_canonical("x", both, table, "flow")
    assert convert.stream(flow.tensors) == "flow"
    assert len(flow.ignored) == 230


def test_the_wrong_stream_is_refused(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Asking an RGB file for flow is an error, not an RGB network."""
    path = write_checkpoint(tmp_path / "x.pt", random_checkpoint, "piergiaj")
    assert read_checkpoint(path, stream="rgb").metadata.stream == "rgb"
    with pytest.raises(MappingError, match="holds a network for rgb; expected one for flow"):
        read_checkpoint(path, stream="flow")


def test_tao_strips_to_piergiaj(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """What TAO does to a checkpoint's names on loading gives piergiaj's names."""
    path = write_checkpoint(tmp_path / "x.ckpt", random_checkpoint, "tao")
    content = torch.load(path, weights_only=True)
    assert {"state_dict", "pytorch-lightning_version"} <= set(content)
    loaded = {name.partition(".")[2] for name in content["state_dict"]}
    table = tables.table("piergiaj")
    assert loaded == set(convert.from_canonical("", random_checkpoint.tensors, table).tensors)


@pytest.mark.parametrize("layout", ["piergiaj", "hassony2"])
def test_torch_loads_what_is_written(
    random_checkpoint: Checkpoint, tmp_path: Path, layout: str
) -> None:
    """torch.load, mapped or not, gives the tensors that were written."""
    path = write_checkpoint(tmp_path / "x.pt", random_checkpoint, layout)
    table = tables.table(layout)
    expected = convert.from_canonical("", random_checkpoint.tensors, table).tensors
    for mmap in (True, False):
        state = torch.load(path, weights_only=True, mmap=mmap)
        assert list(state) == list(expected)
        for name, tensor in state.items():
            np.testing.assert_array_equal(tensor.numpy(), expected[name])


def _own_table(tmp_path: Path) -> Path:
    text = (data("converters") / "piergiaj.toml").read_text("utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace('also = ["", "module."]', 'also = ["net."]'))
    return path


def test_own_table_in_both_directions(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A user's table writes by its path and reads by its path."""
    own = _own_table(tmp_path)
    path = write_checkpoint(tmp_path / "x.pt", random_checkpoint, str(own))
    assert all(name.startswith("net.") for name in torch.load(path, weights_only=True))
    back = read_checkpoint(path, converter=own)
    for name, array in random_checkpoint.tensors.items():
        np.testing.assert_array_equal(back.tensors[name], array)
    with pytest.raises(ConverterError, match=r"none\.toml: cannot be read as a converter table"):
        write_checkpoint(tmp_path / "y.pt", random_checkpoint, str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('format = "keras"', 'format = "caffe"', "format is 'caffe'; expected one of tensorflow"),
        ('  "Conv3d_2b_1x1_bn",\n', "", r"\[order\]: has no place for Conv3d_2b_1x1_bn/beta"),
    ],
)
def test_broken_order_and_format(tmp_path: Path, old: str, new: str, message: str) -> None:
    """A table of an unknown format, or with tensors that its order leaves out, is refused."""
    text = (data("converters") / "keras.toml").read_text("utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ConverterError, match=message):
        tables.load_table(path)


def test_a_format_that_is_only_read(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A table of ONNX reads; writing by it says that i3dzoo does not."""
    own = _own_table(tmp_path)
    own.write_text(own.read_text().replace('format = "torch"', 'format = "onnx"'))
    with pytest.raises(OutputError, match="reads files of format onnx, it writes none"):
        write_checkpoint(tmp_path / "x.onnx", random_checkpoint, str(own))


def test_a_keras_model_within_a_model(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Layers of a model that is a layer of another are found by their own names."""
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
    for name, array in random_checkpoint.tensors.items():
        np.testing.assert_array_equal(back.tensors[name], array)
    assert back.conversion is not None
    assert {step.operation for step in back.conversion.ignored} == {"as --ignore asks"}


@pytest.mark.parametrize("suffix", [".tlt", ".etlt"])
@pytest.mark.parametrize("content", [b"\0\0\0\0\x8f\x12\x9b" * 20, b"PK\x03\x04" + b"\x9b" * 99])
def test_encrypted_tao_files(tmp_path: Path, suffix: str, content: bytes) -> None:
    """Encrypted TAO files are recognised and refused with the way out."""
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"that NVIDIA TAO encrypted.*export it unencrypted"):
        formats.read(path)


def test_encrypted_state_dict(tmp_path: Path) -> None:
    """A Lightning checkpoint whose state dict TAO encrypted is refused with the way out."""
    path = tmp_path / "model.pth"
    torch.save({"state_dict_encrypted": True, "state_dict": b"\x9b" * 99}, path)
    with pytest.raises(FormatError, match=r"that NVIDIA TAO encrypted.*export it unencrypted"):
        formats.read(path)


def test_an_unencrypted_tlt_is_read(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The extension alone refuses nothing."""
    path = write_checkpoint(tmp_path / "model.tlt", random_checkpoint, "tao")
    assert read_checkpoint(path).metadata.num_classes == 12
