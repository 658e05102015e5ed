"""Surgery on the trunk: streams and number formats; and all of it from the command line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import i3dzoo
from i3dzoo import zoo
from i3dzoo.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.cli import main
from i3dzoo.errors import FormatError, ShapeError, UnknownNameError
from i3dzoo.loading import build
from i3dzoo.surgery import average_channels, change_dtype, change_stream

STEM = "Conv3d_1a_7x7.conv.weight"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run `i3dzoo convert` and return its exit code and what it printed."""
    with pytest.raises(SystemExit) as caught:
        main(["convert", *map(str, arguments)])
    printed = capsys.readouterr()
    return int(caught.value.code or 0), printed.out, printed.err


def test_averaging_keeps_the_sum() -> None:
    """The weights of one output sum up to the same over two channels as over three."""
    weight = np.random.default_rng(0).standard_normal((4, 3, 2, 2, 2)).astype("f4")
    two = average_channels(weight, 2)
    assert (two.shape, two.dtype) == ((4, 2, 2, 2, 2), np.float32)
    np.testing.assert_array_equal(two[:, 0], two[:, 1])
    np.testing.assert_allclose(two.sum(axis=1), weight.sum(axis=1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(two[:, 0], weight.mean(axis=1) * 1.5, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(average_channels(two, 3).sum(1), two.sum(1), rtol=1e-6, atol=1e-6)


def test_grey_video_gives_the_same_logits(genuine: Checkpoint) -> None:
    """A clip whose channels are all alike is answered by the flow network as by the RGB one."""
    grey = torch.rand((1, 1, 9, 64, 64), generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        before = build(genuine)(grey.expand(-1, 3, -1, -1, -1))
        after = build(change_stream(genuine, 2))(grey.expand(-1, 2, -1, -1, -1))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert float(before.std()) > 0.1


def test_stream_is_described(genuine: Checkpoint) -> None:
    """Stream, input and history change along, size and rate stay, and the way back is the same."""
    smaller = replace(genuine.metadata.input, crop=112, frames=16, fps=None)
    old = replace(genuine, metadata=replace(genuine.metadata, input=smaller))
    flow = change_stream(old, 2)
    metadata = flow.metadata
    assert (metadata.stream, metadata.zoo, metadata.base) == ("flow", None, "rgb_scratch")
    assert metadata.labels == genuine.metadata.labels
    spec = metadata.input
    assert (spec.channels, spec.mean, spec.flow_bound) == ("xy", (0.5, 0.5), 20.0)
    assert (spec.crop, spec.frames, spec.fps) == (112, 16, None)
    step = "rgb to flow: first kernels averaged over 3 channels, repeated for 2, times 3/2"
    assert metadata.history == (f"{step}, of rgb_scratch",)
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
    """Rounding is to the nearest, is recorded, and survives a file."""
    half = change_dtype(genuine, dtype)  # type: ignore[arg-type]
    torch_half = torch.from_numpy(genuine.tensors[STEM].copy()).to(getattr(torch, dtype))
    assert half.tensors[STEM].tobytes() == torch_half.view(torch.int16).numpy().tobytes()
    assert half.metadata.history == (f"float32 to {dtype}, of rgb_scratch",)
    assert (half.metadata.zoo, half.metadata.base) == (None, "rgb_scratch")
    assert change_dtype(half, dtype) is half  # type: ignore[arg-type]
    path = write_checkpoint(tmp_path / "x.safetensors", half)
    assert path.stat().st_size < 26e6
    read = read_checkpoint(path)
    assert {array.dtype.name for array in read.tensors.values()} == {dtype}
    assert read.metadata == replace(half.metadata, writer=read.metadata.writer)


def test_what_no_format_holds(random_checkpoint: Checkpoint) -> None:
    """A value beyond float16 is refused with its tensor, an unknown format with the known ones."""
    name = "Conv3d_1a_7x7.bn.running_var"
    large = random_checkpoint.tensors[name] + np.float32(1e5)
    checkpoint = replace(random_checkpoint, tensors={**random_checkpoint.tensors, name: large})
    with pytest.raises(FormatError, match=rf"{name}: holds 10\d+, beyond the range of float16"):
        change_dtype(checkpoint, "float16")
    assert change_dtype(checkpoint, "bfloat16").tensors[name].dtype.name == "bfloat16"
    with pytest.raises(UnknownNameError, match="no number format is called 'int8'; there are"):
        change_dtype(checkpoint, "int8")  # type: ignore[arg-type]


def test_public_names() -> None:
    """The operations are the package's own, to be called from Python."""
    assert i3dzoo.change_stream is change_stream
    assert i3dzoo.change_dtype is change_dtype
    assert callable(i3dzoo.change_head)


def test_convert_does_it_all(
    capsys: pytest.CaptureFixture[str], rgb_scratch: Path, tmp_path: Path
) -> None:
    """Stream, matched head and number format in one command, all in report and metadata."""
    target, report = tmp_path / "x.safetensors", tmp_path / "report.json"
    options = ["--labels", "ucf101", "--head", "match", "--in-channels", 2, "--dtype", "bfloat16"]
    code, out, err = run(capsys, rgb_scratch, target, *options, "--report", report)
    assert (code, out) == (0, f"{target}\n")
    assert "\nGolfSwing  <-  mean of golf chipping, golf driving\n" in err
    assert "\nPullUps  <-  pull ups\n" in err
    assert "\nfresh: ApplyEyeMakeup, ApplyLipstick, " in err
    document = json.loads(report.read_text())["surgery"]
    assert document["carried"]["Archery"] == ["archery"]
    assert len(document["carried"]) + len(document["fresh"]) == 101
    metadata = read_checkpoint(target).metadata
    assert list(metadata.history) == document["history"]
    assert [step.split()[0] for step in metadata.history] == ["rgb", "head", "float32"]
    assert (metadata.stream, metadata.num_classes, metadata.base) == ("flow", 101, "rgb_scratch")
    assert metadata.labels == zoo.labels("ucf101")


def test_labels_of_a_file(
    capsys: pytest.CaptureFixture[str], rgb_scratch: Path, tmp_path: Path
) -> None:
    """A file of labels, one a line, names the classes of the new head."""
    names = tmp_path / "names.txt"
    names.write_text("ride_bike\nride_horse\nwave\n")
    target = tmp_path / "x.safetensors"
    code, _, err = run(capsys, rgb_scratch, target, "--labels", names, "--head", "match", "--quiet")
    assert code == 0
    assert "head match for 3 classes: 2 rows carried over by kinetics-400_to_hmdb51, 1 fr" in err
    assert "<-" not in err
    assert read_checkpoint(target).metadata.labels == ("ride_bike", "ride_horse", "wave")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--labels", "hmdb51", "--num-classes", "7"], 2, "--labels has 51 names, --num-classes"),
        (["--labels", "nope"], 1, "nope: is neither a label set nor a file; there are charades"),
        (["--head", "match", "--num-classes", "7"], 1, "the new classes have no names to match"),
        (["--head", "match", "--labels", "hmdb51"], 1, "none of the 51 new classes (brush_hair"),
        (["--in-channels", "4"], 2, "'4' is not one of '2', '3'"),
        (["--dtype", "int8"], 2, "'int8' is not one of"),
        (["--head", "drop", "--labels", "hmdb51"], 2, "--head drop leaves no classes"),
    ],
)
def test_what_cannot_be_done(
    capsys: pytest.CaptureFixture[str],
    random_checkpoint: Checkpoint,
    tmp_path: Path,
    options: list[str],
    code: int,
    message: str,
) -> None:
    """What cannot be done is said in a sentence, and nothing is written."""
    source = write_checkpoint(tmp_path / "x.safetensors", random_checkpoint)
    found, out, err = run(capsys, source, tmp_path / "y.safetensors", *options)
    assert (found, out) == (code, "")
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
