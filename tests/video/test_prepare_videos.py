"""Indexes of one's own videos: nothing copied, resumed, split, segments, flow, same files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import fail, succeed
from helpers.progress import RecordedProgress
from helpers.video_files import numbered, write_video

from i3dzoo.checkpoints.metadata import default_input
from i3dzoo.errors import DatasetError
from i3dzoo.video import CENTRE, WHOLE, FrameCache, VideoDataset, read_index
from i3dzoo.video.extract import Settings
from i3dzoo.video.index import SplitSettings
from i3dzoo.video.prepare_videos import prepare_videos
from i3dzoo.video.summary import summarise


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes with five videos each, which differ in their lengths."""
    root = tmp_path_factory.mktemp("made")
    for number in range(10):
        folder = root / ("run" if number < 5 else "wave")
        folder.mkdir(exist_ok=True)
        write_video(folder / f"v_g{number}_c{number}.mov", numbered(10 + number, 32, 40))
    return root


@pytest.fixture
def clips(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(made, tmp_path / "clips")


def test_index(clips: Path, tmp_path: Path) -> None:
    """The index describes the videos where they are; the next run opens new and changed ones."""
    before = sorted(path for path in clips.rglob("*"))
    prepared = prepare_videos(clips, tmp_path / "out")
    assert sorted(path for path in clips.rglob("*")) == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".journal.jsonl",
        "index.jsonl",
    ]
    index = read_index(tmp_path / "out")
    assert index == prepared.index
    assert index.classes == ("run", "wave")
    assert (prepared.made, prepared.kept) == (10, 0)
    assert (len(index.select(1, "train")), len(index.select(1, "val"))) == (8, 2)
    assert index.held_out(1, training=True) == index.held_out(1, training=False) == "val"
    entry = index.entries[3]
    assert index.info(entry).path == clips / "run/v_g3_c3.mov"
    assert (entry.frames, entry.height, entry.width, entry.fps) == (13, 32, 40, 25)
    write_video(clips / "wave/new.mov", numbered(12, 32, 40))
    write_video(clips / "run/v_g3_c3.mov", numbered(30, 32, 40))
    again = prepare_videos(clips, tmp_path / "out")
    assert (again.made, again.kept) == (2, 9)
    assert again.index.entries[3].frames == 30
    roles = {e.file: e.roles for e in again.index.entries}
    assert {e.file: roles[e.file] for e in index.entries} == {
        e.file: e.roles for e in index.entries
    }


def test_another_split_is_refused(clips: Path, tmp_path: Path) -> None:
    """The split is written down; another one is refused by name."""
    prepare_videos(clips, tmp_path / "out")
    other = SplitSettings(val_fraction=0.2, seed=3)
    with pytest.raises(DatasetError, match=r"out: is split with seed 0; expected 3"):
        prepare_videos(clips, tmp_path / "out", split=other)


def test_segments(clips: Path, tmp_path: Path) -> None:
    """Each segment of a video is a sample of its own, with the frames of its seconds."""
    write_video(clips / "long.mov", numbered(100, 32, 40))
    (clips / "l.csv").write_text(
        "path,label,start,end,split\nlong.mov,a,0,1,test\nlong.mov,b,2,2.4,test\nlong.mov,a,3.2,,test\n"
        "long.mov,b,4,9,train\n"
    )
    index = prepare_videos(clips / "l.csv", tmp_path / "out").index
    assert index.entries[3].error == "is 4.0 s long; the segment starts at 4 s"
    spec = default_input("rgb").replace(frames=64, resize=None, crop=32, fps=None)
    cache = FrameCache(10**8)
    whole = VideoDataset(index, spec, 1, "test", WHOLE, cache=cache)
    assert whole.videos == ("long.mov#t=0,1", "long.mov#t=2,2.4", "long.mov#t=3.2")
    reds = [whole[number].views["rgb"][0, 0, :, 0, 0].tolist() for number in range(3)]
    assert reds == [list(range(25)), list(range(50, 60)), list(range(80, 100))]
    centre = VideoDataset(index, spec.replace(frames=9), 1, "test", CENTRE)
    assert centre[1].views["rgb"][0, 0, :, 0, 0].tolist() == list(range(50, 59))
    looped = VideoDataset(index, spec.replace(frames=16), 1, "test", CENTRE)
    frames = looped[1].views["rgb"][0, 0, :, 0, 0].tolist()
    assert frames == [*range(50, 60), *range(50, 56)]


def test_kinetics_clips_that_are_cut(clips: Path, tmp_path: Path) -> None:
    """A file that is as short as its segment is the segment."""
    (clips / "k.csv").write_text(
        "label,youtube_id,time_start,time_end,split\nrun,v_g1_c1,10,20,train\nrun,v_g2_c2,0,0.2,test\n"
    )
    first, second = prepare_videos(clips / "k.csv", tmp_path / "out").index.entries
    assert (first.start, first.end, first.error) == (None, None, None)
    assert (second.start, second.end, second.error) == (None, None, None)


def test_same_files(clips: Path, tmp_path: Path) -> None:
    """The same file in two classes, and in training and test, is named."""
    shutil.copy(clips / "run/v_g0_c0.mov", clips / "wave/copy.mov")
    progress = RecordedProgress()
    index = prepare_videos(clips, tmp_path / "out", progress=progress).index
    assert any(
        "run/v_g0_c0.mov is the same as wave/copy.mov" in m and "two classes" in m
        for m in progress.messages
    )
    roles = {entry.file: entry.roles[0] for entry in index.entries}
    assert roles["run/v_g0_c0.mov"] == roles["wave/copy.mov"]
    for part, names in (("train", ("run", "wave")), ("test", ("run",))):
        for name in names:
            shutil.copytree(clips / name, tmp_path / "parts" / part / name)
    prepare_videos(tmp_path / "parts", tmp_path / "out2", progress=progress)
    assert any("in two parts" in m and "(train)" in m and "(test)" in m for m in progress.messages)


def test_three_parts(clips: Path, tmp_path: Path) -> None:
    """With three parts, training evaluates the validation part, and evaluation the test part."""
    for part in ("train", "val", "test"):
        shutil.copytree(clips / "run", tmp_path / "parts" / part / "run")
    index = prepare_videos(tmp_path / "parts", tmp_path / "out").index
    assert index.split is None  # nothing was split
    assert index.held_out(1, training=True) == "val"
    assert index.held_out(1, training=False) == "test"
    assert len(index.select(1, "val")) == 5


def test_flow(clips: Path, tmp_path: Path) -> None:
    """Flow is written beside the index, also for two files of one name; videos stay alone."""
    shutil.copy(clips / "wave/v_g5_c5.mov", clips / "run/v_g5_c5.mov")
    settings = Settings("videos", None, 32, "farneback", "npy")
    index = prepare_videos(clips, tmp_path / "out", settings).index
    entry = next(entry for entry in index.entries if entry.file == "run/v_g5_c5.mov")
    assert entry.flow is not None
    assert entry.frames == 15
    assert np.load(tmp_path / "out" / entry.flow.file).shape == (14, 32, 40, 2)
    assert len({e.flow.file for e in index.entries if e.flow}) == 11
    spec = default_input("flow").replace(frames=9, resize=None, crop=32, fps=None)
    dataset = VideoDataset(index, spec, 1, "train")
    assert dataset[0].views["flow"].shape == (1, 2, 9, 32, 32)
    assert prepare_videos(clips, tmp_path / "out", settings).made == 0


def test_summary(clips: Path, tmp_path: Path) -> None:
    """The summary counts classes, videos, seconds, sizes, rates, parts, and what is unusable."""
    (clips / "run/bad.mp4").write_bytes(b"no video" * 99)
    summary = summarise(prepare_videos(clips, tmp_path / "out").index)
    assert summary.classes == {"run": 5, "wave": 5}
    assert summary.seconds == pytest.approx((5.8, 0.4, 0.76))
    assert (summary.sizes, summary.rates) == ({"40x32": 10}, {"25": 10})
    assert (summary.parts, summary.chance, summary.majority) == ({"train": 8, "val": 2}, 0.5, 0.5)
    assert list(summary.unusable) == ["run/bad.mp4"]
    for fact in ("10 videos of 2 classes", "40x32", "chance is 50.0%", "run/bad.mp4"):
        assert fact in str(summary)


def test_command(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`prepare videos` prints the path of the index, the summary, and what to do next."""
    out, err = succeed(
        capsys, "prepare", "videos", clips, tmp_path / "out", "--group-by", r"g\d", "--seed", 5
    )
    assert out.strip() == str(tmp_path / "out/index.jsonl")
    assert "8 training, 2 validation" in err
    assert f"--data {tmp_path / 'out'}" in err
    out, _ = succeed(
        capsys, "prepare", "videos", clips, tmp_path / "out", "--group-by", r"g\d", "--seed", 5,
        "--json",
    )  # fmt: skip
    document = json.loads(out)
    assert (document["made"], document["kept"]) == (0, 10)
    assert document["parts"] == {"train": 8, "val": 2}
    assert document["seconds"]["longest"] == pytest.approx(0.76)
    assert "no such file or folder" in fail(capsys, "prepare", "videos", "gone", tmp_path / "x")
    assert not (tmp_path / "x").exists()
