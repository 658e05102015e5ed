"""The settings of `i3dzoo features`: presets, rows, short and unreadable videos, both streams."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import run, succeed
from helpers.exported import responsive
from helpers.video_files import numbered, write_video

from i3dzoo.checkpoints.checkpoint import write_checkpoint
from i3dzoo.features import feature_preset, feature_preset_names

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 40 frames at 25 fps."""
    return write_video(tmp_path_factory.mktemp("video") / "a.mov", numbered(40, 40, 56))


@pytest.fixture(scope="module")
def rgb_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of RGB whose features depend on the frames."""
    folder = tmp_path_factory.mktemp("rgb")
    return write_checkpoint(folder / "x.safetensors", responsive("rgb", 5))


@pytest.fixture(scope="module")
def flow_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Likewise of optical flow."""
    return write_checkpoint(
        tmp_path_factory.mktemp("flow") / "x.safetensors", responsive("flow", 5)
    )


def test_explain_is_what_is_written(
    capsys: Capture, rgb_file: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows that --explain prints are those of the JSON; no network runs for them."""
    common = ("features", video, "--model", rgb_file, "--stride", 12, "--fps", 12.5)
    out, _ = succeed(capsys, *common, "--tail", "pad", "--pad", "edge", "-o", tmp_path)
    assert out == f"{tmp_path}\n"
    written = json.loads((tmp_path / "a.json").read_bytes())
    assert [(row["first_frame"], row["last_frame"], row["padded"]) for row in written["rows"]] == [
        (0, 30, 0),
        (24, 38, 8),
    ]
    assert [row["end"] for row in written["rows"]] == pytest.approx([1.28, 1.6])
    model = written["models"]["rgb"]
    assert (len(model["sha256"]), model["precision"], model["epsilon"]) == (64, "fp32", 1e-3)
    assert written["video"]["sha256"]

    monkeypatch.setattr("i3dzoo.pretrained.InceptionI3d.forward", None)
    monkeypatch.setattr("i3dzoo.network.i3d.I3D.endpoints", None)
    again = (*common, "--tail", "pad", "--pad", "edge", "--explain")
    out, _ = succeed(capsys, *again, "--json")
    assert json.loads(out)["videos"][0]["rows"] == written["rows"]
    out, _ = succeed(capsys, *again)
    assert out.splitlines()[-1].split() == ["1", "24", "38", "0.960", "1.600", "8"]


@pytest.mark.parametrize("preset", feature_preset_names())
def test_explain_of_each_preset(capsys: Capture, rgb_file: Path, video: Path, preset: str) -> None:
    """The rows of each preset can be read without computing them, also for a video of one frame."""
    one = write_video(video.with_name("one.mov"), numbered(1, 40, 56))
    common = ("--model", rgb_file, "--preset", preset, "--streams", "rgb", "--explain", "--json")
    out, _ = succeed(capsys, "features", video, one, *common)
    long, short = (document["rows"] for document in json.loads(out)["videos"])
    # video_features needs 64 frames; the tools whose pad is none write nothing of a short video
    assert len(long) == {
        "video-features": 0, "cmcs-thumos": 7, "anet": 2, "ms-tcn": 40, "charades": 4,
        "ten-crop": 2, "xd-violence": 2, "bsl": 25, "wlasl": 1,
    }[preset]  # fmt: skip
    padded = feature_preset(preset).settings.get("pad", "loop") != "none"
    assert len(short) == padded


def test_short_videos_follow_pad(capsys: Capture, rgb_file: Path, tmp_path: Path) -> None:
    """A video shorter than a window is padded, or has no row; it never fails."""
    short = write_video(tmp_path / "s.mov", numbered(5, 40, 56))
    rows = {}
    for pad in ("none", "zero", "edge", "loop"):
        out = tmp_path / pad
        succeed(capsys, "features", short, "--model", rgb_file, "--pad", pad, "-o", out)
        rows[pad] = np.load(out / "s.npy")
        notes = json.loads((out / "s.json").read_bytes())["notes"]
        assert ("no rows" in notes[-1]) == (pad == "none")
    assert {pad: array.shape for pad, array in rows.items()} == {
        "none": (0, 1024), "zero": (1, 1024), "edge": (1, 1024), "loop": (1, 1024),
    }  # fmt: skip
    assert np.abs(rows["zero"] - rows["edge"]).max() > 1e-3
    assert np.abs(rows["edge"] - rows["loop"]).max() > 1e-3


def test_unreadable_videos(capsys: Capture, rgb_file: Path, video: Path, tmp_path: Path) -> None:
    """An unreadable video is named; --on-bad-video says whether the command fails or stops."""
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    common = ("features", bad, video, "--model", rgb_file, "--clips", 1)
    for choice, expected, done in (("report", 1, True), ("skip", 0, True), ("error", 1, False)):
        out = tmp_path / choice
        code, _, err = run(capsys, *common, "--on-bad-video", choice, "-o", out)
        assert (code, (out / "a.npy").exists()) == (expected, done)
        assert "bad.mp4" in err
        assert ("2 videos: 1 extracted, 0 kept, 1 failed" in err) == done


def test_both_streams_and_kept_flow(
    capsys: Capture, rgb_file: Path, flow_file: Path, tmp_path: Path
) -> None:
    """Two models give RGB and flow side by side; kept flow gives the same features again."""
    path = write_video(tmp_path / "v.mov", numbered(18, 40, 56))
    models = ("--model", rgb_file, "--model", flow_file)
    common = ("features", path, *models, "--flow-folder", tmp_path / "flow")
    succeed(capsys, *common, "--flow", "farneback", "-o", tmp_path / "first")
    first = np.load(tmp_path / "first" / "v.npy")
    assert first.shape == (2, 2048)
    assert np.load(tmp_path / "flow" / "v.npy").shape == (18, 36, 50, 2)
    succeed(capsys, *common, "--flow", "frames", "-o", tmp_path / "second")
    np.testing.assert_allclose(np.load(tmp_path / "second" / "v.npy"), first, atol=1e-5)
    described = json.loads((tmp_path / "first" / "v.json").read_bytes())
    assert described["optical_flow"].startswith("Farnebäck of OpenCV ")
    assert sorted(described["models"]) == ["flow", "rgb"]
    one = ("features", path, "--model", rgb_file, "--streams", "both", "-o", tmp_path / "x")
    code, _, err = run(capsys, *one)
    assert code == 2
    assert "streams: expected models for both, found rgb" in err


def test_preset_of_ones_own(capsys: Capture, rgb_file: Path, video: Path, tmp_path: Path) -> None:
    """A YAML file is a preset, and so is the record of a folder; options replace its settings."""
    own = tmp_path / "own.yaml"
    own.write_text("title: mine\nsource: me\nsettings: {window: 16, stride: 8, dtype: float16}\n")
    common = ("features", video, "--model", rgb_file, "--preset")
    succeed(capsys, *common, own, "--stride", 20, "-o", tmp_path / "a")
    record = tmp_path / "a" / "features.yaml"
    succeed(capsys, *common, record, "-o", tmp_path / "b")
    first, second = (np.load(tmp_path / folder / "a.npy") for folder in ("a", "b"))
    np.testing.assert_array_equal(first, second)
    assert (first.shape, first.dtype) == ((3, 1024), np.float16)
    own.write_text("title: mine\nsource: me\nsettings: {stridd: 8}\n")
    code, _, err = run(capsys, *common, own, "-o", tmp_path / "c")
    assert code == 2
    assert "own.yaml: settings" in err
    assert "stridd" in err
    code, _, err = run(capsys, *common, "anett", "-o", tmp_path / "c")
    assert code == 1
    assert "anett: not a preset and not a file; the presets are anet, bsl, " in err


def test_files_of_something_else(
    capsys: Capture, rgb_file: Path, video: Path, tmp_path: Path
) -> None:
    """A file that another program wrote is not replaced, and a JSON of its own is refused."""
    common = ("features", video, "--model", rgb_file, "-o", tmp_path)
    (tmp_path / "a.npy").write_bytes(b"precious")
    code, _, err = run(capsys, *common)
    assert code == 1
    assert "a.npy: exists already, and features.yaml, which would describe it, does not" in err
    assert (tmp_path / "a.npy").read_bytes() == b"precious"
    (tmp_path / "a.npy").unlink()
    succeed(capsys, *common)
    (tmp_path / "a.json").write_text('{"video": 1}')
    code, _, err = run(capsys, *common)
    assert code == 1
    assert "a.json: expected the JSON of features, with the digest of a video" in err
