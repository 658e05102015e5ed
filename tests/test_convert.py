"""Conversion: round trips to the bit, and every breach of the law named."""

from pathlib import Path

import numpy as np
import pytest

from i3dzoo import convert, tables
from i3dzoo.arrays import Array, Tensors
from i3dzoo.errors import MappingError, ShapeError
from i3dzoo.formats.tensorflow_bundle import read_index


def _foreign(random_tensors: Tensors, layout: str = "deepmind") -> dict[str, Array]:
    return dict(convert.from_canonical("x", random_tensors, tables.table(layout)).tensors)


@pytest.mark.parametrize("name", tables.names())
def test_round_trip(random_tensors: Tensors, name: str) -> None:
    """Canonical to a layout and back is the same to the bit, in the same order."""
    there = convert.from_canonical("x", random_tensors, tables.table(name))
    back = convert.to_canonical("x", there.tensors, tables.table(name))
    assert list(back.tensors) == list(random_tensors)
    for key, array in random_tensors.items():
        np.testing.assert_array_equal(back.tensors[key], array)


@pytest.mark.parametrize("name", tables.names())
def test_detection(random_tensors: Tensors, name: str) -> None:
    """A layout is recognised by its names alone."""
    everything = [tables.table(each) for each in tables.names()]
    assert convert.detect("x", _foreign(random_tensors, name), everything).name == name


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("name", ["piergiaj", "hassony2", "deepmind"])
def test_a_network_within_another(random_tensors: Tensors, name: str, head: bool) -> None:
    """Behind a text that no table knows a whole network is recognised, and nothing less."""
    tensors = random_tensors
    if not head:
        tensors = {key: a for key, a in tensors.items() if not key.startswith("Logits")}
    inner = convert.from_canonical("x", tensors, tables.table(name)).tensors
    inner = {key.removeprefix("RGB/inception_i3d/"): array for key, array in inner.items()}
    foreign = {f"net.backbone.{key}": array for key, array in inner.items()}
    everything = [tables.table(each) for each in tables.names()]
    table = convert.detect("x", foreign, everything)
    assert table.name == name
    back = convert.to_canonical("x", foreign, table)
    for key, array in tensors.items():
        np.testing.assert_array_equal(back.tensors[key], array)
    with pytest.raises(MappingError, match=r"1 that it does not know \(net.fc.weight\)"):
        convert.to_canonical("x", {**foreign, "net.fc.weight": np.zeros(1, "f4")}, table)
    foreign.pop(next(key for key in foreign if "Mixed_4d" in key or "mixed_4d" in key))
    with pytest.raises(MappingError, match="have no names of any layout"):
        convert.detect("x", foreign, everything)


def test_two_networks_of_one_stream(random_tensors: Tensors) -> None:
    """Where --stream cannot choose, it is not offered."""
    inner = _foreign(random_tensors, "piergiaj")
    foreign = {f"{who}.{key}": a for who in ("student", "teacher") for key, a in inner.items()}
    table = convert.detect("x", foreign, map(tables.table, tables.names()))
    message = r"holds rgb under 'student\.', rgb under 'teacher\.'; pass a table .*--converter"
    with pytest.raises(MappingError, match=message):
        convert.to_canonical("x", foreign, table)


def test_conversion_copies_nothing(random_tensors: Tensors) -> None:
    """Changing the axis order makes views, so converting moves no bytes."""
    foreign = _foreign(random_tensors)
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
    """Names and shapes of every published index are read whole, and written the same.

    The Kinetics-600 one has no scope, BatchNorm vectors with four leading axes, and Momentum slots,
    which are left out with that reason.
    """
    _, entries = read_index(test_data / "deepmind" / f"{name}.index")
    foreign = {
        key: np.broadcast_to(np.float32(0), entry.shape) for key, entry in sorted(entries.items())
    }
    table = convert.detect("x", foreign, map(tables.table, tables.names()))
    assert table.name == layout
    read = convert.to_canonical("x", foreign, table)
    assert len(read.ignored) == slots
    assert all(step.source.endswith("/Momentum") for step in read.ignored)
    assert all("optimiser" in step.operation for step in read.ignored)
    written = convert.from_canonical("x", read.tensors, table).tensors
    assert {key: array.shape for key, array in written.items()} == {
        key: array.shape for key, array in foreign.items() if not key.endswith("/Momentum")
    }


def test_missing_and_unknown_are_listed(random_tensors: Tensors) -> None:
    """A renamed tensor is named twice: the one that is missing and the one that is not known."""
    foreign = _foreign(random_tensors)
    foreign["RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/weights"] = foreign.pop(
        "RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w"
    )
    with pytest.raises(MappingError) as caught:
        convert.to_canonical("mine", foreign, tables.table("deepmind"))
    message = str(caught.value)
    assert "mine: does not fit the layout deepmind: it lacks 1 of its tensors" in message
    assert "(RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w)" in message
    assert "1 that it does not know (RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/weights)" in message


def test_half_a_head_is_missing(random_tensors: Tensors) -> None:
    """A head without its bias is an error, a file without any head is a trunk."""
    foreign = _foreign(random_tensors, "piergiaj")
    del foreign["logits.conv3d.bias"]
    with pytest.raises(MappingError, match=r"lacks 1 of its tensors \(logits.conv3d.bias\)"):
        convert.to_canonical("x", foreign, tables.table("piergiaj"))
    del foreign["logits.conv3d.weight"]
    trunk = convert.to_canonical("x", foreign, tables.table("piergiaj"))
    assert convert.num_classes(trunk.tensors) == 0
    assert len(trunk.tensors) == 285


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("Conv3d_2b_1x1.conv3d.weight", np.zeros((64, 63, 1, 1, 1), "f4"), r"expected \(64, 64, 1"),
        ("Conv3d_2b_1x1.bn.bias", np.zeros((64, 1), "f4"), r"shape \(64, 1\); expected axes C"),
        ("Conv3d_1a_7x7.conv3d.weight", np.zeros((64, 4, 7, 7, 7), "f4"), "takes 4 channels"),
        ("Mixed_5c.b3b.bn.running_var", np.zeros(7, "f4"), r"of shape \(7,\); expected \(128,\)"),
    ],
)
def test_wrong_shapes(random_tensors: Tensors, name: str, array: Array, message: str) -> None:
    """A tensor of another shape is refused with its names, its shape and the expected one."""
    foreign = {**_foreign(random_tensors, "piergiaj"), name: array}
    with pytest.raises(ShapeError, match=message) as caught:
        convert.to_canonical("x", foreign, tables.table("piergiaj"))
    assert name in str(caught.value)


def test_wrong_dtype(random_tensors: Tensors) -> None:
    """Integers are no weights."""
    foreign = {**_foreign(random_tensors, "piergiaj"), "logits.conv3d.bias": np.zeros(12, "i4")}
    with pytest.raises(MappingError, match=r"logits\.conv3d\.bias has dtype int32; expected"):
        convert.to_canonical("x", foreign, tables.table("piergiaj"))


def test_nothing_of_i3d() -> None:
    """A file of another network is refused with the way out."""
    everything = [tables.table(name) for name in tables.names()]
    with pytest.raises(MappingError, match=r"resnet.*--converter"):
        convert.detect("x", ["resnet.conv1"], everything)


def test_learned_scale_does_not_fit_a_layout_without_it(random_tensors: Tensors) -> None:
    """A BatchNorm scale that is not one is never dropped."""
    changed = {**random_tensors, "Conv3d_1a_7x7.bn.weight": np.full(64, 2, "f4")}
    with pytest.raises(MappingError, match=r"Conv3d_1a_7x7.bn.weight is not all ones.*piergiaj"):
        convert.from_canonical("x", changed, tables.table("deepmind"))


def test_compose_reports_every_tensor(random_tensors: Tensors) -> None:
    """The mapping from layout to layout has a line for each tensor written, with both names."""
    source = _foreign(random_tensors)
    read = convert.to_canonical("x", source, tables.table("deepmind"))
    written = convert.from_canonical("x", read.tensors, tables.table("piergiaj"))
    steps = convert.compose(read, written)
    assert len(steps) == len(written.tensors) == 344
    assert {step.source for step in steps} - {""} == set(source)
    stem = next(step for step in steps if step.target == "Conv3d_1a_7x7.conv3d.weight")
    assert stem.source == "RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w"
    assert stem.operation == "DHWIO -> canonical"
