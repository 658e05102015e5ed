"""Change the stream and the number format, also from the command line."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.checkpoints import described
from helpers.cli import run

import i3dzoo
from i3dzoo import zoo
from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.checkpoints.history import HistoryStep
from i3dzoo.checkpoints.streams import average_channels, change_dtype, change_stream
from i3dzoo.errors import FormatError, ShapeError, UnknownNameError
from i3dzoo.pretrained import build

STEM = "Conv3d_1a_7x7.conv.weight"
Convert = Callable[..., tuple[int, str, str]]


def test_averaging_keeps_the_sum() -> None:
    """The sum of the weights over channels stays the same."""
    weight = np.random.default_rng(0).standard_normal((4, 3, 2, 2, 2)).astype("f4")
    two = average_channels(weight, 2)
    assert (two.shape, two.dtype) == ((4, 2, 2, 2, 2), np.float32)
    np.testing.assert_array_equal(two[:, 0], two[:, 1])
    np.testing.assert_allclose(two.sum(axis=1), weight.sum(axis=1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(two[:, 0], weight.mean(axis=1) * 1.5, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(average_channels(two, 3).sum(1), two.sum(1), rtol=1e-6, atol=1e-6)


def test_grey_video_gives_the_same_logits(genuine: Checkpoint) -> None:
    """A clip with equal channels gives the same response as before."""
    grey = torch.rand((1, 1, 9, 64, 64), generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        before = build(genuine)(grey.expand(-1, 3, -1, -1, -1))
        after = build(change_stream(genuine, 2))(grey.expand(-1, 2, -1, -1, -1))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert float(before.std()) > 0.1


def test_stream_is_described(genuine: Checkpoint) -> None:
    """Stream, input and history change; size and rate stay, in both directions."""
    smaller = genuine.metadata.input.replace(crop=112, frames=16, fps=None)
    flow = change_stream(described(genuine, input=smaller), 2)
    metadata = flow.metadata
    assert (metadata.stream, metadata.zoo, metadata.base) == ("flow", None, "rgb_scratch")
    assert metadata.labels == genuine.metadata.labels
    spec = metadata.input
    assert (spec.channels, spec.mean, spec.flow_bound) == ("xy", (0.5, 0.5), 20.0)
    assert (spec.crop, spec.frames, spec.fps) == (112, 16, None)
    assert metadata.history == (
        HistoryStep(operation="stream", base_model="rgb_scratch", before="rgb", after="flow"),
    )
    rest = {n: a for n, a in flow.tensors.items() if n != STEM}
    assert all(a is genuine.tensors[n] for n, a in rest.items())
    back = change_stream(flow, 3)
    assert back.metadata.input == smaller
    assert back.metadata.base == "rgb_scratch"
    assert len(back.metadata.history) == 2
    assert change_stream(flow, 2) is flow
    with pytest.raises(ShapeError, match=r"in_channels is 4; expected 3 \(RGB\) or 2 \(flow\)"):
        change_stream(flow, 4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_number_formats(genuine: Checkpoint, dtype: str, tmp_path: Path) -> None:
    """Values are rounded to nearest, and the change is in the history of the file."""
    half = change_dtype(genuine, dtype)  # type: ignore[arg-type]
    torch_half = torch.from_numpy(genuine.tensors[STEM].copy()).to(getattr(torch, dtype))
    assert half.tensors[STEM].tobytes() == torch_half.view(torch.int16).numpy().tobytes()
    (step,) = half.metadata.history
    assert str(step) == f"Converted rgb_scratch from float32 to {dtype}"
    assert (half.metadata.zoo, half.metadata.base) == (None, "rgb_scratch")
    assert change_dtype(half, dtype) is half  # type: ignore[arg-type]
    path = write_checkpoint(tmp_path / "x.safetensors", half)
    assert path.stat().st_size < 26e6
    read = read_checkpoint(path)
    assert {array.dtype.name for array in read.tensors.values()} == {dtype}
    assert read.metadata == half.metadata.replace(writer=read.metadata.writer)


def test_what_no_format_holds(random_checkpoint: Checkpoint) -> None:
    """Values outside float16 and unknown formats are errors."""
    name = "Conv3d_1a_7x7.bn.running_var"
    large = random_checkpoint.tensors[name] + np.float32(1e5)
    checkpoint = replace(random_checkpoint, tensors={**random_checkpoint.tensors, name: large})
    with pytest.raises(FormatError, match=rf"{name}: the value 10\d+ is outside the range"):
        change_dtype(checkpoint, "float16")
    assert change_dtype(checkpoint, "bfloat16").tensors[name].dtype.name == "bfloat16"
    with pytest.raises(UnknownNameError, match="no number format has the name 'int8'"):
        change_dtype(checkpoint, "int8")  # type: ignore[arg-type]


def test_public_names() -> None:
    """The operations are public names of the package."""
    assert i3dzoo.change_stream is change_stream
    assert i3dzoo.change_dtype is change_dtype
    assert callable(i3dzoo.change_head)


@pytest.fixture
def convert(capsys: pytest.CaptureFixture[str]) -> Convert:
    """A function that runs `i3dzoo convert`."""
    return partial(run, capsys, "convert")


def test_convert_does_it_all(convert: Convert, rgb_scratch: Path, tmp_path: Path) -> None:
    """One command changes stream, head and dtype; report and metadata have all steps."""
    target, report = tmp_path / "x.safetensors", tmp_path / "report.json"
    options = ["--labels", "ucf101", "--head", "match", "--in-channels", 2, "--dtype", "bfloat16"]
    code, out, err = convert(rgb_scratch, target, *options, "--report", report)
    assert (code, out) == (0, f"{target}\n")
    assert "\nGolfSwing  <-  mean of golf chipping, golf driving\n" in err
    assert "\nPullUps  <-  pull ups\n" in err
    assert "\nfresh: ApplyEyeMakeup, ApplyLipstick, " in err
    document = json.loads(report.read_text())["changes"]
    assert document["carried"]["Archery"] == ["archery"]
    assert len(document["carried"]) + len(document["fresh"]) == 101
    metadata = read_checkpoint(target).metadata
    assert [step.to_dict() for step in metadata.history] == document["history"]
    assert [step.operation for step in metadata.history] == ["stream", "head", "dtype"]
    assert (metadata.stream, metadata.num_classes, metadata.base) == ("flow", 101, "rgb_scratch")
    assert metadata.labels == zoo.labels("ucf101")


def test_keeping_a_head_drops_a_wrong_claim(
    convert: Convert, genuine: Checkpoint, tmp_path: Path
) -> None:
    """As push advises, --head keep --labels drops the zoo name of a renamed checkpoint."""
    names = (genuine.metadata.labels or ())[::-1]
    source, target = (tmp_path / f"{name}.safetensors" for name in ("claimed", "x"))
    write_checkpoint(source, described(genuine, labels=names))
    (tmp_path / "names.txt").write_text("\n".join(names), "utf-8")
    assert convert(source, target, "--head", "keep", "--labels", tmp_path / "names.txt")[0] == 0
    metadata = read_checkpoint(target).metadata
    assert (metadata.labels, metadata.zoo, metadata.base) == (names, None, "rgb_scratch")
    assert metadata.history[-1].operation == "rename"


def test_labels_of_a_file(convert: Convert, rgb_scratch: Path, tmp_path: Path) -> None:
    """--labels takes a file with one label a line."""
    names, target = tmp_path / "names.txt", tmp_path / "x.safetensors"
    names.write_text("ride_bike\nride_horse\nwave\n")
    code, _, err = convert(rgb_scratch, target, "--labels", names, "--head", "match")
    assert code == 0, err
    assert "for 3 classes: 2 rows carried over by kinetics-400_to_hmdb51, 1 fresh" in err
    assert read_checkpoint(target).metadata.labels == ("ride_bike", "ride_horse", "wave")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--labels", "hmdb51", "--num-classes", "7"], 2, "--labels has 51 names"),
        (["--labels", "nope"], 1, "nope: expected a label set (charades"),
        (["--head", "match", "--num-classes", "7"], 1, "the new classes have no names to match"),
        (["--head", "match", "--labels", "hmdb51"], 1, "none of the 51 new classes (brush_hair"),
        (["--in-channels", "4"], 2, "'4' is not one of '2', '3'"),
        (["--dtype", "int8"], 2, "'int8' is not one of"),
        (["--head", "drop", "--labels", "hmdb51"], 2, "--head drop"),
    ],
)
def test_what_cannot_be_done(
    convert: Convert, file: Path, tmp_path: Path, options: list[str], code: int, message: str
) -> None:
    """An error is one sentence, and no file is written."""
    actual, out, err = convert(file, tmp_path / "y.safetensors", *options)
    assert (actual, out) == (code, "")
    assert message in err
    assert list(tmp_path.iterdir()) == []
