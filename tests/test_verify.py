"""Compare two checkpoints, in Python and on the command line."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.cli import run

from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.checkpoints.head import change_head
from i3dzoo.checkpoints.metadata import Input
from i3dzoo.checkpoints.streams import change_dtype, change_stream
from i3dzoo.errors import ShapeError, VideoError
from i3dzoo.pretrained import build
from i3dzoo.verify import compare_outputs, compare_tensors, random_clip
from i3dzoo.video import centre_clip

LAST = "Mixed_5c.Branch_3.Conv3d_0b_1x1.bn.bias"


def statuses(here: Checkpoint, there: Checkpoint, atol: float = 0.0) -> dict[str, int]:
    """Compare two checkpoints and count the statuses of their tensors."""
    return Counter(difference.status for difference in compare_tensors(here, there, atol))


def altered(checkpoint: Checkpoint, name: str, by: float) -> Checkpoint:
    """Return a checkpoint with one value of one tensor changed."""
    array = checkpoint.tensors[name].copy()
    array.flat[0] += np.float32(by)
    return replace(checkpoint, tensors={**checkpoint.tensors, name: array})


@pytest.fixture(scope="module")
def small(genuine: Checkpoint) -> Checkpoint:
    """The genuine weights, with frames small enough to run often."""
    spec = genuine.metadata.input.replace(crop=64, resize=None)
    return replace(genuine, metadata=genuine.metadata.replace(input=spec, zoo=None))


@pytest.fixture(scope="module")
def file(small: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The genuine weights as a canonical file."""
    return write_checkpoint(tmp_path_factory.mktemp("compare") / "x.safetensors", small)


def test_layouts_do_not_matter(small: Checkpoint, file: Path, tmp_path: Path) -> None:
    """The same weights in two layouts are the same, tensor by tensor."""
    other = read_checkpoint(write_checkpoint(tmp_path / "x.pt", small, "piergiaj"))
    assert statuses(read_checkpoint(file), other) == {"same": 287}


def test_every_kind_of_difference(random_checkpoint: Checkpoint) -> None:
    """A changed value, another shape and a missing tensor have statuses of their own."""
    moved = altered(random_checkpoint, LAST, 0.25)
    (difference,) = (d for d in compare_tensors(random_checkpoint, moved) if d.status != "same")
    assert (difference.name, difference.status) == (LAST, "differs")
    assert difference.largest == pytest.approx(0.25, rel=1e-6)
    assert statuses(random_checkpoint, moved, atol=0.3) == {"same": 286, "within": 1}
    wide = compare_tensors(random_checkpoint, change_head(random_checkpoint, 3))
    assert Counter(difference.status for difference in wide) == {"same": 285, "shape": 2}
    assert wide[-1].here == "[12] float32"
    assert wide[-1].there == "[3] float32"
    trunk = change_head(random_checkpoint, None, head="drop")
    assert statuses(random_checkpoint, trunk) == {"same": 285, "only here": 2}
    assert statuses(trunk, random_checkpoint) == {"same": 285, "only there": 2}


def test_rounding_is_measured(genuine: Checkpoint) -> None:
    """Rounding to float16 changes values by at most half a unit in the last place."""
    half = change_dtype(genuine, "float16")
    again = change_dtype(half, "float32")
    assert statuses(half, again) == {"same": 287}
    largest = max(d.largest or 0.0 for d in compare_tensors(genuine, half))
    biggest = max(float(np.abs(array).max()) for array in genuine.tensors.values())
    assert 0 < largest <= biggest * 2**-11


def test_first_endpoint_that_differs(small: Checkpoint) -> None:
    """A change in the last block shows in the outputs from that block on."""
    clip = random_clip(small)
    assert clip.shape == (1, 3, 16, 64, 64)
    same = compare_outputs(small, small, clip)
    assert [output.largest for output in same] == [0.0] * 13
    assert [output.name for output in same][::12] == ["Conv3d_1a_7x7", "logits"]
    moved = compare_outputs(small, altered(small, LAST, 1.0), clip)
    assert [output.name for output in moved if output.largest] == ["Mixed_5c", "logits"]
    with torch.inference_mode():
        logits = build(small)(clip)
    assert moved[-1].scale == pytest.approx(float(logits.abs().max()), rel=1e-5)


def test_outputs_of_other_kinds(small: Checkpoint) -> None:
    """Logits of different classes are not subtracted; other streams are refused."""
    clip = random_clip(small)
    outputs = compare_outputs(small, change_head(small, 3), clip)
    assert [output.largest for output in outputs] == [*[0.0] * 12, None]
    headless = change_head(small, None, head="drop")
    assert compare_outputs(headless, headless, clip)[-1].name == "features"
    with pytest.raises(ShapeError, match="one network takes rgb, the other flow"):
        compare_outputs(small, change_stream(small, 2), clip)


@pytest.mark.real_data
def test_clip_of_a_video(genuine: Checkpoint, test_data: Path) -> None:
    """The centre clip has the shape in the metadata; an RGB video does not fit a flow network."""
    small = Input(resize=64, crop=64, frames=16)
    video = test_data / "clips" / "v_CricketShot_g04_c01_rgb.gif"
    assert centre_clip(video, small).shape == (3, 16, 64, 64)
    with pytest.raises(VideoError, match="RGB"):
        centre_clip(video, change_stream(genuine, 2).metadata.input)


def test_verify_against_agrees(
    capsys: pytest.CaptureFixture[str], small: Checkpoint, file: Path, tmp_path: Path
) -> None:
    """The exit code is 0 if the files agree within the tolerance."""
    other = write_checkpoint(tmp_path / "x.pt", altered(small, LAST, 1e-3), "piergiaj")
    code, out, _ = run(capsys, "verify", file, "--against", file)
    assert (code, out.splitlines()[0]) == (0, "tensors: 287 same")
    code, out, _ = run(capsys, "verify", file, "--against", other)
    assert code == 1
    assert f"  differs     {LAST}  by up to 0.001" in out
    assert out.endswith(f"{file} and {other}: differ\n")
    code, out, _ = run(capsys, "verify", file, "--against", other, "--atol", "0.01")
    assert code == 0
    assert "tensors: 286 same, 1 within" in out


def test_verify_numeric(
    capsys: pytest.CaptureFixture[str], small: Checkpoint, file: Path, tmp_path: Path
) -> None:
    """Outputs are listed by endpoint; --logits-atol decides by the logits."""
    half = write_checkpoint(tmp_path / "half.safetensors", change_dtype(small, "float16"))
    code, out, err = run(capsys, "verify", half, "--against", file, "--numeric")
    assert code == 1
    assert "  and 218 more; --json lists all\n" in out
    assert "outputs: Conv3d_1a_7x7 differs first\n" in out
    assert "Next: " in err
    code, out, err = run(
        capsys, "verify", half, "--against", file, "--logits-atol", "0.5", "--json"
    )
    (document,) = json.loads(out)
    assert (code, err) == (0, "")
    assert document["agrees"] is True
    assert document["tally"] == {"differs": 230, "same": 57}
    assert 0 < document["outputs"][-1]["largest"] < 0.5
    code, _, _ = run(capsys, "verify", half, "--against", file, "--logits-atol", "1e-6")
    assert code == 1


def test_different_inputs(
    capsys: pytest.CaptureFixture[str], small: Checkpoint, file: Path, tmp_path: Path
) -> None:
    """If the descriptions of the input differ, a message says which input both get."""
    metadata = small.metadata.replace(input=small.metadata.input.replace(fps=30.0))
    other = write_checkpoint(tmp_path / "x.safetensors", replace(small, metadata=metadata))
    code, out, err = run(capsys, "verify", file, "--against", other, "--numeric")
    assert code == 0
    assert "outputs: all the same" in out
    assert "both get the input of the first: rgb, 64 frames" in err


@pytest.mark.parametrize("option", [["--numeric"], ["--atol", "1"], ["--logits-atol", "1"]])
def test_missing_against(capsys: pytest.CaptureFixture[str], option: list[str]) -> None:
    """The options of a comparison need --against."""
    code, _, err = run(capsys, "verify", "rgb_scratch", *option)
    assert code == 2
    assert "add --against" in " ".join(err.split())
