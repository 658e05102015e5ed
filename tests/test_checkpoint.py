"""Checkpoints: what is read off a file, what a file says of itself, and what is refused."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import i3dzoo
from i3dzoo import formats, zoo
from i3dzoo.arrays import Tensors
from i3dzoo.checkpoint import Checkpoint, check_finite, read_checkpoint, write_checkpoint
from i3dzoo.checksums import sha256
from i3dzoo.errors import (
    ChecksumError,
    FormatError,
    MappingError,
    MetadataError,
    OutputError,
    UnknownNameError,
)
from i3dzoo.head import replace_head
from i3dzoo.loading import build, load, to_checkpoint
from i3dzoo.metadata import Input, Metadata, Source, default_input
from i3dzoo.surgery import change_stream


def test_canonical_file_describes_itself(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Tensors and description come back; only the writer is filled in."""
    path = write_checkpoint(tmp_path / "x.safetensors", random_checkpoint)
    found = read_checkpoint(path)
    assert found.checked
    assert found.metadata == dataclasses.replace(
        random_checkpoint.metadata, writer=f"i3dzoo {i3dzoo.__version__}"
    )
    for name, array in random_checkpoint.tensors.items():
        np.testing.assert_array_equal(found.tensors[name], array)


def test_unknown_weights_get_the_published_input(
    random_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Of a file without a description, stream and classes are read off its shapes."""
    path = write_checkpoint(tmp_path / "x.pt", random_checkpoint, "piergiaj")
    metadata = read_checkpoint(path).metadata
    assert (metadata.stream, metadata.num_classes, metadata.labels) == ("rgb", 12, None)
    assert metadata.input == default_input("rgb")
    assert metadata.source == Source("piergiaj", sha256(path))


def test_published_weights_are_recognised(genuine: Checkpoint, tmp_path: Path) -> None:
    """The genuine weights are recognised in another layout, and get labels and input."""
    path = write_checkpoint(tmp_path / "x.pt", genuine, "piergiaj")
    metadata = read_checkpoint(path).metadata
    assert metadata.zoo == "rgb_scratch"
    assert metadata.labels is not None
    assert metadata.labels[227] == "playing cricket"
    assert metadata.input == genuine.metadata.input


def test_flipped_byte_without_checksums(genuine: Checkpoint, tmp_path: Path) -> None:
    """One flipped bit in a file without checksums is caught by the published checksums."""
    path = write_checkpoint(tmp_path / "x.pkl", genuine, "flax")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ChecksumError, match=r"is rgb_scratch but for Mixed_.*fetch it again"):
        read_checkpoint(path)
    assert read_checkpoint(path, altered=True).metadata.zoo is None


def test_another_stream_is_no_damage(genuine: Checkpoint, tmp_path: Path) -> None:
    """Published weights whose first kernels were averaged for flow are read without --altered."""
    flow = change_stream(genuine, 2)
    back = read_checkpoint(write_checkpoint(tmp_path / "x.h5", flow, "keras"))
    assert (back.metadata.stream, back.metadata.zoo) == ("flow", None)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("Conv3d_1a_7x7.bn.bias", np.nan, "holds 1 values that are NaN or infinite"),
        ("Logits.Conv3d_0c_1x1.conv.bias", np.inf, "holds 1 values that are NaN or infinite"),
        ("Conv3d_1a_7x7.bn.running_var", -1, "holds negative variances"),
    ],
)
def test_bad_numbers(random_tensors: Tensors, name: str, value: float, message: str) -> None:
    """NaN, infinity and negative variances are refused with the tensor's name."""
    array = random_tensors[name].copy()
    array[3] = value
    with pytest.raises(FormatError, match=f"x: {name} {message}"):
        check_finite("x", {**random_tensors, name: array})


def test_output_is_guarded(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """An existing file, a folder and a link are not written over; force replaces a file only."""
    path = tmp_path / "x.safetensors"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already; pass --force"):
        write_checkpoint(path, random_checkpoint)
    assert path.read_text() == "mine"
    write_checkpoint(path, random_checkpoint, force=True)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(OutputError, match="is a symbolic link"):
        write_checkpoint(link, random_checkpoint, force=True)
    with pytest.raises(OutputError, match="is a folder"):
        write_checkpoint(tmp_path, random_checkpoint, force=True)


def test_description_must_fit_the_tensors(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A description of other tensors than the file's is refused."""
    metadata = dataclasses.replace(random_checkpoint.metadata, num_classes=9, labels=None)
    path = tmp_path / "x.safetensors"
    message = "says rgb and 9 classes, the tensors are rgb with 12"
    with pytest.raises(MetadataError, match=message):
        write_checkpoint(path, dataclasses.replace(random_checkpoint, metadata=metadata))
    assert not path.exists()
    formats.write("safetensors", path, random_checkpoint.tensors, {"i3dzoo": metadata.to_json()})
    with pytest.raises(MetadataError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("Conv3d_1a_7x7.bn.bias", lambda array: array * np.nan, "bias holds 64 values that are"),
        ("Conv3d_1a_7x7.bn.bias", lambda array: array[1:], r"shape \(63,\); expected \(64,\)"),
        ("Logits.extra", lambda _: np.zeros(3, "f4"), r"1 that it does not know \(Logits.extra\)"),
    ],
)
def test_only_what_can_be_read_is_written(
    random_checkpoint: Checkpoint,
    tmp_path: Path,
    name: str,
    change: Callable[[Any], Any],
    message: str,
) -> None:
    """Tensors that reading would refuse are not written."""
    tensors = {**random_checkpoint.tensors, name: change(random_checkpoint.tensors.get(name))}
    with pytest.raises((FormatError, MappingError), match=message):
        write_checkpoint(tmp_path / "x", dataclasses.replace(random_checkpoint, tensors=tensors))
    assert list(tmp_path.iterdir()) == []


def test_a_new_head_has_no_old_labels(genuine: Checkpoint) -> None:
    """A network with a head of its own is no published one, and its classes have no names."""
    model = build(genuine)
    assert to_checkpoint(model).metadata == genuine.metadata
    model.Logits.Conv3d_0c_1x1.conv = torch.nn.Conv3d(1024, 10, 1)  # type: ignore[union-attr]
    metadata = to_checkpoint(model).metadata
    assert (metadata.num_classes, metadata.labels, metadata.zoo) == (10, None, None)
    assert metadata.history == ("changed since it was loaded as rgb_scratch",)
    model.Logits.Conv3d_0c_1x1.conv = torch.nn.Sequential(torch.nn.Conv3d(1024, 10, 1))  # type: ignore[union-attr]
    with pytest.raises(MappingError, match=r"the model: .* 2 that it does not know \(Logits"):
        to_checkpoint(model)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_number_formats_are_kept(genuine: Checkpoint, dtype: str) -> None:
    """A network in half precision is saved in it, and is no longer the published one."""
    found = to_checkpoint(build(genuine).to(getattr(torch, dtype)))
    assert {array.dtype.name for array in found.tensors.values()} == {dtype}
    assert (found.metadata.zoo, found.metadata.base) == (None, "rgb_scratch")
    assert found.metadata.labels == genuine.metadata.labels


def test_without_checksums_the_file_tells(
    monkeypatch: pytest.MonkeyPatch, random_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """A network of which no checksums were published is compared with the file that was pulled."""
    monkeypatch.setenv("I3DZOO_CACHE", str(tmp_path))
    labels = zoo.labels("charades")
    metadata = dataclasses.replace(
        random_checkpoint.metadata, zoo="rgb_charades", labels=labels, num_classes=157
    )
    tensors = replace_head(random_checkpoint.tensors, 157)
    checkpoint = dataclasses.replace(random_checkpoint, tensors=tensors, metadata=metadata)
    model = build(checkpoint)
    assert to_checkpoint(model).metadata.zoo is None  # there is nothing to compare with
    zoo.cached_path("rgb_charades").parent.mkdir()
    write_checkpoint(zoo.cached_path("rgb_charades"), checkpoint)
    assert to_checkpoint(model).metadata == metadata
    model.metadata = dataclasses.replace(metadata, labels=labels[::-1])
    renamed = to_checkpoint(model).metadata
    assert (renamed.zoo, renamed.base) == (None, "rgb_charades")
    model.metadata = metadata
    model.state_dict()["Conv3d_1a_7x7.bn.bias"][0] += 1
    changed = to_checkpoint(model).metadata
    assert changed.history == ("changed since it was loaded as rgb_charades",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "malformed"),
        ("{", "malformed"),
        ('{"format_version": 99}', "version 99, this i3dzoo reads 1; upgrade"),
        ('{"format_version": 1}', "malformed"),
        ('{"format_version": 1, "labels": ' + "[" * 100_000, "malformed"),
    ],
)
def test_malformed_descriptions(
    random_checkpoint: Checkpoint, tmp_path: Path, text: str, message: str
) -> None:
    """Descriptions that are no object, of another version or incomplete are refused."""
    path = tmp_path / "x.safetensors"
    formats.write("safetensors", path, random_checkpoint.tensors, {"i3dzoo": text})
    with pytest.raises(MetadataError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": "bgr"}, "expected 'rgb' or 'xy'"),
        ({"mean": (0.5,)}, "mean has 1 values; expected 3"),
        ({"std": (0.5, 0.5, 0.0)}, "expected positive"),
        ({"crop": 0}, "crop is 0"),
        ({"crop": 224.5}, "crop is 224.5; expected a positive whole number"),
        ({"frames": True}, "frames is True; expected a positive whole number"),
        ({"fps": float("inf")}, "fps is inf; expected a positive number or nothing"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean is .*nan.*; expected numbers"),
    ],
)
def test_impossible_input(changes: dict[str, Any], message: str) -> None:
    """An input that cannot be is refused when it is made."""
    with pytest.raises(MetadataError, match=message):
        dataclasses.replace(Input(), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [1, 2]}, r"labels is \(1, 2\); expected texts or nothing"),
        ({"history": "abc"}, "history is 'abc'; expected texts"),
        ({"history": [1, 2]}, r"history is \(1, 2\); expected texts"),
        ({"zoo": ["x"]}, r"zoo is \('x',\); expected text or nothing"),
        ({"num_classes": 2.0}, "num_classes is 2.0; expected a whole number"),
        ({"architecture": "resnet"}, "architecture is 'resnet'; expected 'inception_i3d'"),
        ({"source": {"layout": 1, "sha256": ""}}, "source.layout is 1; expected text"),
        ({"stream": "flow"}, "input.channels is 'rgb'; expected 'xy' for flow"),
        ({"stream": []}, r"stream is \(\); expected 'rgb' or 'flow'"),
    ],
)
def test_mistyped_descriptions(changes: dict[str, Any], message: str) -> None:
    """Each value of a description is of the type that it should be."""
    metadata = Metadata("rgb", 2, ("a", "b"), default_input("rgb"), Source("canonical", ""))
    text = json.dumps(json.loads(metadata.to_json()) | changes)
    with pytest.raises(MetadataError, match=message):
        Metadata.from_json(text)


def test_labels_must_be_as_many_as_classes() -> None:
    """A list of labels of another length than the head is refused."""
    with pytest.raises(MetadataError, match="there are 1 labels for 2 classes"):
        Metadata("rgb", 2, ("a",), default_input("rgb"), Source("canonical", ""))


def test_metadata_round_trip(random_checkpoint: Checkpoint) -> None:
    """The description survives JSON."""
    metadata = random_checkpoint.metadata
    assert Metadata.from_json(metadata.to_json()) == metadata


def test_load_gives_a_ready_network(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Load returns an eval-mode network with labels and the weights of the file, in any dtype."""
    path = write_checkpoint(tmp_path / "x.safetensors", random_checkpoint)
    model = load(path)
    assert not model.training
    assert model.labels == random_checkpoint.metadata.labels
    weight = model.get_parameter("Conv3d_1a_7x7.conv.weight")
    np.testing.assert_array_equal(
        weight.detach().numpy(), random_checkpoint.tensors["Conv3d_1a_7x7.conv.weight"]
    )
    half = {name: array.astype("f2") for name, array in random_checkpoint.tensors.items()}
    half_model = build(dataclasses.replace(random_checkpoint, tensors=half))
    assert str(next(half_model.parameters()).dtype) == "torch.float16"


@pytest.mark.parametrize("name", ["nothing", "a" * 300])
def test_unknown_model(name: str) -> None:
    """A name that is neither file nor model is refused with the zoo's names."""
    with pytest.raises(UnknownNameError, match=f"{name}: is neither a file nor a zoo model; the"):
        load(name)


def test_wrong_layout_is_refused(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Reading a file as a layout that it does not have names what is missing."""
    path = write_checkpoint(tmp_path / "x.pt", random_checkpoint, "piergiaj")
    with pytest.raises(MappingError, match="does not fit the layout deepmind: it lacks 228"):
        read_checkpoint(path, layout="deepmind")
