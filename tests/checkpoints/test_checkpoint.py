"""Read and write checkpoints and their metadata."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.checkpoints import assert_equal, described

import i3dzoo
from i3dzoo import formats, zoo
from i3dzoo.arrays import Tensors
from i3dzoo.checkpoints.checkpoint import (
    Checkpoint,
    check_finite,
    read_checkpoint,
    write_checkpoint,
)
from i3dzoo.checkpoints.head import replace_head
from i3dzoo.checkpoints.history import HistoryStep
from i3dzoo.checkpoints.metadata import Input, Metadata, Source, default_input
from i3dzoo.checkpoints.streams import change_stream
from i3dzoo.digests import sha256
from i3dzoo.errors import (
    ChecksumError,
    FormatError,
    MappingError,
    MetadataError,
    OutputError,
    UnknownNameError,
)
from i3dzoo.fetch.find import open_checkpoint
from i3dzoo.pretrained import build, load, to_checkpoint


def test_canonical_file_describes_itself(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Tensors and metadata survive a file; only the writer is added."""
    path = write_checkpoint(tmp_path / "x.safetensors", random_checkpoint)
    checkpoint = read_checkpoint(path)
    assert checkpoint.checked
    assert checkpoint.metadata == random_checkpoint.metadata.replace(
        writer=f"i3dzoo {i3dzoo.__version__}"
    )
    assert_equal(checkpoint.tensors, random_checkpoint.tensors)


def test_unknown_weights_get_the_published_input(
    random_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Without metadata, the shapes give stream and number of classes."""
    path = write_checkpoint(tmp_path / "x.pt", random_checkpoint, "piergiaj")
    metadata = read_checkpoint(path).metadata
    assert (metadata.stream, metadata.num_classes, metadata.labels) == ("rgb", 12, None)
    assert metadata.input == default_input("rgb")
    assert metadata.source == Source("piergiaj", sha256(path))


def test_published_weights_are_recognised(genuine: Checkpoint, tmp_path: Path) -> None:
    """Published weights in another layout get their labels and input."""
    path = write_checkpoint(tmp_path / "x.pt", genuine, "piergiaj")
    metadata = open_checkpoint(path).metadata
    assert metadata.zoo == "rgb_scratch"
    assert metadata.labels is not None
    assert metadata.labels[227] == "playing cricket"
    assert metadata.input == genuine.metadata.input


def test_flipped_byte_without_checksums(genuine: Checkpoint, tmp_path: Path) -> None:
    """The published checksums detect one flipped bit in a file without checksums."""
    path = write_checkpoint(tmp_path / "x.pkl", genuine, "flax")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ChecksumError, match=r"is rgb_scratch except for Mixed_.*fetch it again"):
        open_checkpoint(path)
    assert open_checkpoint(path, altered=True).metadata.zoo is None


def test_another_stream_is_no_damage(genuine: Checkpoint, tmp_path: Path) -> None:
    """Published weights that were converted to flow are read without --altered."""
    flow = change_stream(genuine, 2)
    back = read_checkpoint(write_checkpoint(tmp_path / "x.h5", flow, "keras"))
    assert (back.metadata.stream, back.metadata.zoo) == ("flow", None)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("Conv3d_1a_7x7.bn.bias", np.nan, "has 1 values that are NaN or infinite"),
        ("Logits.Conv3d_0c_1x1.conv.bias", np.inf, "has 1 values that are NaN or infinite"),
        ("Conv3d_1a_7x7.bn.running_var", -1, "has negative variances"),
    ],
)
def test_bad_numbers(random_tensors: Tensors, name: str, value: float, message: str) -> None:
    """NaN, infinity and negative variances are errors that name the tensor."""
    array = random_tensors[name].copy()
    array[3] = value
    with pytest.raises(FormatError, match=f"x: {name} {message}"):
        check_finite("x", {**random_tensors, name: array})


def test_output_is_guarded(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Files, folders and links are not overwritten; force replaces a file only."""
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
    """Metadata that contradicts the tensors is refused."""
    contradiction = described(random_checkpoint, num_classes=9, labels=None)
    path = tmp_path / "x.safetensors"
    message = "says rgb with 9 classes, but the tensors are rgb with 12"
    with pytest.raises(MetadataError, match=message):
        write_checkpoint(path, contradiction)
    assert not path.exists()
    text = contradiction.metadata.to_json()
    formats.write("safetensors", path, random_checkpoint.tensors, {"i3dzoo": text})
    with pytest.raises(MetadataError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("Conv3d_1a_7x7.bn.bias", lambda array: array * np.nan, "bias has 64 values that are"),
        ("Conv3d_1a_7x7.bn.bias", lambda array: array[1:], r"shape \(63,\); expected \(64,\)"),
        ("Logits.extra", lambda _: np.zeros(3, "f4"), r"1 unknown \(Logits.extra\)"),
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
    """A network with a new head is not a published one, and its classes have no names."""
    model = build(genuine)
    assert to_checkpoint(model).metadata == genuine.metadata
    model.Logits.Conv3d_0c_1x1.conv = torch.nn.Conv3d(1024, 10, 1)  # type: ignore[union-attr]
    metadata = to_checkpoint(model).metadata
    assert (metadata.num_classes, metadata.labels, metadata.zoo) == (10, None, None)
    assert metadata.history == (HistoryStep(operation="change", base_model="rgb_scratch"),)
    model.Logits.Conv3d_0c_1x1.conv = torch.nn.Sequential(torch.nn.Conv3d(1024, 10, 1))  # type: ignore[union-attr]
    with pytest.raises(MappingError, match=r"the model: .* 2 unknown \(Logits"):
        to_checkpoint(model)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_number_formats_are_kept(genuine: Checkpoint, dtype: str) -> None:
    """A network in half precision keeps its dtype and is not the published one."""
    half = to_checkpoint(build(genuine).to(getattr(torch, dtype)))
    assert {array.dtype.name for array in half.tensors.values()} == {dtype}
    assert (half.metadata.zoo, half.metadata.base) == (None, "rgb_scratch")
    assert half.metadata.labels == genuine.metadata.labels


def test_without_checksums_the_file_tells(
    monkeypatch: pytest.MonkeyPatch, random_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Without published checksums, a network is compared with the cached file."""
    monkeypatch.setenv("I3DZOO_CACHE", str(tmp_path))
    labels = zoo.labels("charades")
    metadata = random_checkpoint.metadata.replace(
        zoo="rgb_charades", labels=labels, num_classes=157
    )
    tensors = replace_head(random_checkpoint.tensors, 157)
    checkpoint = dataclasses.replace(random_checkpoint, tensors=tensors, metadata=metadata)
    model = build(checkpoint)
    assert to_checkpoint(model).metadata.zoo is None  # there is nothing to compare with
    zoo.cached_path("rgb_charades").parent.mkdir()
    write_checkpoint(zoo.cached_path("rgb_charades"), checkpoint)
    assert to_checkpoint(model).metadata == metadata
    model.metadata = metadata.replace(labels=labels[::-1])
    renamed = to_checkpoint(model).metadata
    assert (renamed.zoo, renamed.base) == (None, "rgb_charades")
    model.metadata = metadata
    model.state_dict()["Conv3d_1a_7x7.bn.bias"][0] += 1
    changed = to_checkpoint(model).metadata
    assert changed.history == (HistoryStep(operation="change", base_model="rgb_charades"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected a mapping, found a list of 0"),
        ("{", "not valid JSON"),
        ('{"format_version": 1}', "format_version: expected 2, found 1"),
        ('{"format_version": "' + "9" * 999 + '"}', r"format_version: expected 2, found '9{79};"),
        ('{"format_version": 2}', "stream: missing; expected 'flow' or 'rgb'"),
        ('{"format_version": 2, "labels": ' + "[" * 100_000, "more than 64 levels"),
    ],
)
def test_malformed_descriptions(
    random_checkpoint: Checkpoint, tmp_path: Path, text: str, message: str
) -> None:
    """Metadata that is malformed, incomplete or of another version is refused."""
    path = tmp_path / "x.safetensors"
    formats.write("safetensors", path, random_checkpoint.tensors, {"i3dzoo": text})
    with pytest.raises(MetadataError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": (0.5,)}, "mean has 1 values; expected 3"),
        ({"channels": "xy"}, "mean has 3 values; expected 2 for xy"),
        ({"std": (0.5, 0.5, 0.0)}, r"std is 0\.0; expected a number greater than 0"),
        ({"crop": 0}, "crop is 0; expected a number greater than 0"),
        ({"frames": 1 << 40}, "frames is 1099511627776; expected"),
        ({"fps": float("inf")}, "fps is inf; expected"),
        ({"resize": float("nan")}, "resize is nan; expected"),
    ],
)
def test_impossible_input(changes: dict[str, Any], message: str) -> None:
    """Values that no input can have are refused on construction."""
    with pytest.raises(MetadataError, match=message):
        Input().replace(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [1, 2]}, r"labels\[0\]: expected text, found 1"),
        ({"labels": ["a"]}, "labels has 1 names; expected 2, one a class"),
        ({"history": "abc"}, "history: expected a list, found 'abc'"),
        ({"history": [{"operation": "x"}]}, r"history\[0\].operation: expected .*, found 'x'"),
        ({"zoo": ["x"]}, "zoo: expected null or text, found a list of 1"),
        ({"num_classes": 2.0}, "num_classes: expected an integer, found 2.0"),
        ({"architecture": "resnet"}, "architecture: expected 'inception_i3d', found 'resnet'"),
        ({"source": {"layout": 1, "sha256": ""}}, "source.layout: expected text, found 1"),
        ({"stream": "flow"}, "input.channels is 'rgb'; expected 'xy' for flow"),
        ({"stream": []}, "stream: expected 'flow' or 'rgb', found a list of 0"),
        ({"input": {"crop": 224.5}}, "input.crop: expected an integer, found 224.5"),
        ({"input": {"frames": True}}, "input.frames: expected an integer, found true"),
        ({"input": {"channels": "yuv"}}, "input.channels: expected 'bgr' or 'rgb' or 'xy', found"),
        ({"input": {"mean": [0.5, None, 0.5]}}, r"input.mean\[1\]: expected a number, found null"),
        ({"input": {"crop": 0}}, "input: crop is 0; expected a number greater than 0"),
        ({"mirror": 1}, "mirror: unknown key; expected one of stream, num_classes"),
    ],
)
def test_mistyped_descriptions(changes: dict[str, Any], message: str) -> None:
    """Each value of the metadata is checked."""
    metadata = Metadata("rgb", 2, ("a", "b"), default_input("rgb"), Source("canonical", ""))
    text = json.dumps(json.loads(metadata.to_json()) | changes)
    with pytest.raises(MetadataError, match=f"^x.safetensors: {message}"):
        Metadata.from_json(text, "x.safetensors")


def test_only_a_description_that_can_be_read_is_written(
    random_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Values of the wrong type are refused before a file is written."""
    spec = Input(crop=224.5)  # type: ignore[arg-type]
    with pytest.raises(MetadataError, match=r"input.crop: expected an integer, found 224\.5"):
        write_checkpoint(tmp_path / "x", described(random_checkpoint, input=spec))
    assert list(tmp_path.iterdir()) == []


def test_load_gives_a_ready_network(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """`load` returns a network in eval mode with the labels and weights of the file."""
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
    """The error for an unknown model lists the names of the zoo."""
    with pytest.raises(UnknownNameError, match=f"{name}: is neither a file nor a zoo model; the"):
        load(name)


def test_wrong_layout_is_refused(random_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Reading a file with the wrong layout lists the missing tensors."""
    path = write_checkpoint(tmp_path / "x.pt", random_checkpoint, "piergiaj")
    with pytest.raises(MappingError, match="the layout deepmind, found 228 missing"):
        read_checkpoint(path, layout="deepmind")
