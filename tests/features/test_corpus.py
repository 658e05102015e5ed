"""Features of lists of videos: shards, addresses, and what other processes have claimed."""

import json
import threading
from pathlib import Path

import fsspec
import numpy as np
import pytest
from helpers.cli import run
from helpers.video_files import numbered, write_video

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.features import Extractor, FeatureSettings, extract_to_folder
from i3dzoo.files.exclusive import claim
from i3dzoo.pretrained import build as network

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three videos of 20 to 22 frames."""
    folder = tmp_path_factory.mktemp("videos")
    names = ("a", "b", "c")
    return [
        write_video(folder / f"{name}.mov", numbered(20 + number, 40, 56))
        for number, name in enumerate(names)
    ]


def test_shards(
    capsys: Capture,
    rgb_file: Path,
    videos: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each shard has its part of the list, also of torchrun's processes; a summary says so."""
    common = ("features", *videos, "--model", rgb_file, "-o", tmp_path)
    code, _, err = run(capsys, *common, "--shard", "2/2")
    assert code == 0
    assert "1 video: 1 extracted, 0 kept, 0 failed" in err
    assert sorted(path.name for path in tmp_path.glob("*.npy")) == ["b.npy"]
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = run(capsys, *common, "--batch-size", 3)
    assert "2 videos: 2 extracted, 0 kept, 0 failed" in err
    assert sorted(path.name for path in tmp_path.glob("*.npy")) == ["a.npy", "b.npy", "c.npy"]
    monkeypatch.undo()
    code, _, err = run(capsys, *common)
    assert "3 videos: 0 extracted, 3 kept, 0 failed" in err
    code, _, err = run(capsys, *common, "--shard", "3/2")
    assert code == 2
    assert "the shard is '3/2'; expected NUMBER/COUNT, counted from 1" in err


def test_address(capsys: Capture, rgb_file: Path, videos: list[Path], tmp_path: Path) -> None:
    """Features are written to an address as to a folder, and kept there when they exist."""
    address = f"memory://{tmp_path.name}"
    common = ("features", *videos[:2], "--model", rgb_file, "--json", "-o")
    code, out, _ = run(capsys, *common, address)
    assert code == 0
    first = json.loads(out)["videos"][0]
    assert first["path"] == f"{address}/a.npy"
    assert run(capsys, *common, tmp_path / "out")[0] == 0
    files = fsspec.filesystem("memory")
    for name in ("a.npy", "b.npy"):
        with files.open(f"/{tmp_path.name}/{name}") as file:
            np.testing.assert_array_equal(np.load(file), np.load(tmp_path / "out" / name))
    _, _, err = run(capsys, *common, address)
    assert "2 videos: 0 extracted, 2 kept, 0 failed" in err
    code, _, err = run(capsys, *common, address, "--stride", 3)
    assert code == 1
    assert f"{address}: holds features of another model or of other options" in err
    code, _, err = run(capsys, *common, f"{address}-other", "--format", "hdf5")
    assert code == 2
    assert "expected a folder for one HDF5 file" in err


def test_videos_that_others_have_claimed(
    rgb: Checkpoint, videos: list[Path], tmp_path: Path
) -> None:
    """What another process has claimed comes last: kept if it was finished, else extracted."""
    extractor = Extractor(network(rgb), FeatureSettings())
    names = {str(video): video.stem for video in videos}
    models = {"rgb": {"sha256": "0"}}
    done = []
    with claim(tmp_path / "a.json"):
        results = extract_to_folder(extractor, names, tmp_path, models=models)
        done += [next(results), next(results)]
        assert sorted(result.path for result in done) == [
            str(tmp_path / "b.json"),
            str(tmp_path / "c.json"),
        ]
        waiting = threading.Thread(target=lambda: done.extend(results))
        waiting.start()
    waiting.join()
    assert done[2].path == str(tmp_path / "a.json")
    assert done[2].features is not None
    assert not list(tmp_path.glob(".*"))
