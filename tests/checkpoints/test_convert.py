"""Conversion: exact round trips, and errors for each violation of the law."""

from pathlib import Path

import numpy as np
import pytest
from helpers.checkpoints import assert_equal, detect, to_layout

from i3dzoo.arrays import Array, Tensors
from i3dzoo.checkpoints import convert, converter
from i3dzoo.checkpoints.networks import find_networks
from i3dzoo.errors import MappingError, ShapeError
from i3dzoo.formats.tensorflow_bundle import read_index


@pytest.mark.parametrize("name", converter.names())
def test_round_trip(random_tensors: Tensors, name: str) -> None:
    """Converting to a layout and back is exact and keeps the order."""
    back = convert.to_canonical("x", to_layout(random_tensors, name), converter.table(name))
    assert_equal(back.tensors, random_tensors)


@pytest.mark.parametrize("name", converter.names("images"))
def test_round_trip_of_images(random_tensors: Tensors, name: str) -> None:
    """Converting to a layout of images and back is exact; the names determine the layout."""
    tensors = {name: a[:, :, :1] if a.ndim == 5 else a for name, a in random_tensors.items()}
    foreign = to_layout(tensors, name)
    back = convert.to_canonical("x", foreign, converter.table(name))
    assert_equal(back.tensors, tensors)
    tables = [converter.table(other) for other in converter.names("images")]
    (network,) = find_networks({"": foreign}, tables)
    assert network.table.name == name
    short = {key: array for key, array in foreign.items() if "5c" not in key and "5b" not in key}
    with pytest.raises(MappingError, match=r"missing \("):
        convert.to_canonical("x", short, converter.table(name))


@pytest.mark.parametrize("name", converter.names())
def test_detection(random_tensors: Tensors, name: str) -> None:
    """The names of the tensors determine the layout."""
    assert detect(to_layout(random_tensors, name)).name == name


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("name", ["piergiaj", "hassony2", "deepmind"])
def test_a_network_within_another(random_tensors: Tensors, name: str, head: bool) -> None:
    """A whole network behind an unknown prefix is detected, a part of one is not."""
    tensors = {key: a for key, a in random_tensors.items() if head or not key.startswith("Logits")}
    foreign = {
        f"net.backbone.{key.removeprefix('RGB/inception_i3d/')}": array
        for key, array in to_layout(tensors, name).items()
    }
    table = detect(foreign)
    assert table.name == name
    assert_equal(convert.to_canonical("x", foreign, table).tensors, tensors)
    with pytest.raises(MappingError, match=r"1 unknown \(net.fc.weight\)"):
        convert.to_canonical("x", {**foreign, "net.fc.weight": np.zeros(1, "f4")}, table)
    foreign.pop(next(key for key in foreign if "Mixed_4d" in key or "mixed_4d" in key))
    with pytest.raises(MappingError, match="expected the tensor names of a known layout"):
        detect(foreign)


def test_two_networks_of_one_stream(random_tensors: Tensors) -> None:
    """The message suggests --key, and not --stream if that cannot choose."""
    inner = to_layout(random_tensors, "piergiaj")
    foreign = {f"{who}.{key}": a for who in ("student", "teacher") for key, a in inner.items()}
    table = detect(foreign)
    message = (
        r"found rgb under 'student' \(layout piergiaj, 12 classes\), rgb under 'teacher' .*; "
        r"choose one with --key student or --key teacher$"
    )
    with pytest.raises(MappingError, match=message):
        convert.to_canonical("x", foreign, table)


def test_conversion_copies_nothing(random_tensors: Tensors) -> None:
    """Converted arrays are views, so conversion copies no weights."""
    foreign = to_layout(random_tensors)
    name = "RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w"
    assert np.shares_memory(foreign[name], random_tensors["Conv3d_1a_7x7.conv.weight"])
    assert foreign[name].shape == (7, 7, 7, 3, 64)


@pytest.mark.parametrize(
    ("name", "layout", "slots"),
    [
        ("rgb_imagenet", "deepmind", 0),
        ("rgb_scratch", "deepmind", 0),
        ("flow_imagenet", "deepmind", 0),
        ("flow_scratch", "deepmind", 0),
        ("rgb_scratch_kin600", "deepmind600", 116),
    ],
)
def test_all_five_checkpoints_in_both_directions(
    test_data: Path, name: str, layout: str, slots: int
) -> None:
    """Names and shapes of every published index are read and written unchanged.

    The Kinetics-600 one has no scope, BatchNorm vectors with four leading axes, and Momentum slots,
    which are left out with that reason.
    """
    _, entries = read_index(test_data / "deepmind" / f"{name}.index")
    foreign = {
        key: np.broadcast_to(np.float32(0), entry.shape) for key, entry in sorted(entries.items())
    }
    table = detect(foreign)
    assert table.name == layout
    read = convert.to_canonical("x", foreign, table)
    assert len(read.ignored) == slots
    assert all(mapped.source.endswith("/Momentum") for mapped in read.ignored)
    assert all("optimiser" in mapped.operation for mapped in read.ignored)
    written = convert.from_canonical("x", read.tensors, table).tensors
    assert {key: array.shape for key, array in written.items()} == {
        key: array.shape for key, array in foreign.items() if not key.endswith("/Momentum")
    }


def test_missing_and_unknown_are_listed(random_tensors: Tensors) -> None:
    """The error for a renamed tensor lists the missing and the unknown name."""
    foreign = to_layout(random_tensors)
    foreign["RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/weights"] = foreign.pop(
        "RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w"
    )
    with pytest.raises(MappingError) as caught:
        convert.to_canonical("mine", foreign, converter.table("deepmind"))
    message = str(caught.value)
    assert "mine: expected the tensors of the layout deepmind, found 1 missing" in message
    assert "(RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w)" in message
    assert "1 unknown (RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/weights)" in message


def test_half_a_head_is_missing(random_tensors: Tensors) -> None:
    """A head without its bias is an error; a file without a head is not."""
    foreign = to_layout(random_tensors, "piergiaj")
    del foreign["logits.conv3d.bias"]
    with pytest.raises(MappingError, match=r"1 missing \(logits.conv3d.bias\)"):
        convert.to_canonical("x", foreign, converter.table("piergiaj"))
    del foreign["logits.conv3d.weight"]
    trunk = convert.to_canonical("x", foreign, converter.table("piergiaj"))
    assert convert.num_classes(trunk.tensors) == 0
    assert len(trunk.tensors) == 285


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("logits.conv3d.bias", np.zeros(12, "i4"), "has dtype int32; expected"),
        ("Conv3d_2b_1x1.conv3d.weight", np.zeros((64, 63, 1, 1, 1), "f4"), r"expected \(64, 64, 1"),
        ("Conv3d_2b_1x1.bn.bias", np.zeros((64, 1), "f4"), r"shape \(64, 1\); expected axes C"),
        ("Conv3d_1a_7x7.conv3d.weight", np.zeros((64, 4, 7, 7, 7), "f4"), "has 4 input channels"),
        ("Mixed_5c.b3b.bn.running_var", np.zeros(7, "f4"), r"of shape \(7,\); expected \(128,\)"),
    ],
)
def test_wrong_shapes_and_dtypes(
    random_tensors: Tensors, name: str, array: Array, message: str
) -> None:
    """The error for a wrong shape or dtype has the name, what was found and what is expected."""
    foreign = {**to_layout(random_tensors, "piergiaj"), name: array}
    with pytest.raises(MappingError if array.dtype == "i4" else ShapeError, match=message) as error:
        convert.to_canonical("x", foreign, converter.table("piergiaj"))
    assert name in str(error.value)


def test_nothing_of_i3d() -> None:
    """The error for another network suggests --converter."""
    with pytest.raises(MappingError, match=r"resnet.*--converter"):
        detect({"resnet.conv1": np.zeros(3)})


def test_learned_scale_does_not_fit_a_layout_without_it(random_tensors: Tensors) -> None:
    """A BatchNorm scale that is not one is not dropped."""
    changed = {**random_tensors, "Conv3d_1a_7x7.bn.weight": np.full(64, 2, "f4")}
    with pytest.raises(MappingError, match=r"Conv3d_1a_7x7.bn.weight: expected ones.*piergiaj"):
        convert.from_canonical("x", changed, converter.table("deepmind"))


def test_compose_reports_every_tensor(random_tensors: Tensors) -> None:
    """The composed mapping has an entry with both names for each tensor written."""
    source = to_layout(random_tensors)
    read = convert.to_canonical("x", source, converter.table("deepmind"))
    written = convert.from_canonical("x", read.tensors, converter.table("piergiaj"))
    mapping = convert.compose(read, written)
    assert len(mapping) == len(written.tensors) == 344
    assert {mapped.source for mapped in mapping} - {""} == set(source)
    stem = next(mapped for mapped in mapping if mapped.target == "Conv3d_1a_7x7.conv3d.weight")
    assert stem.source == "RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w"
    assert stem.operation == "DHWIO -> canonical"
