"""Samples and batches: their frames and pixels, reproducibility, and bad videos."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.video_data import small_prepared
from helpers.video_files import numbered, write_video
from msgspec.structs import replace
from PIL import Image

from i3dzoo.checkpoints.metadata import Input, default_input
from i3dzoo.errors import DatasetError, ShapeError, VideoError
from i3dzoo.video import (
    CENTRE,
    MULTI,
    TRAIN,
    WHOLE,
    Batch,
    Entry,
    FrameCache,
    Frames,
    Index,
    Sample,
    Sampling,
    VideoDataset,
    epoch_batches,
    load_batches,
    normalise,
    preprocess,
    read,
)
from i3dzoo.video.decode import probe
from i3dzoo.video.index import FlowEntry, make_entry
from i3dzoo.video.pipeline import load_plan

SPEC = Input(resize=32, crop=24, frames=8, fps=None)
UNSCALED = SPEC.replace(resize=None)
UNSCALED_FLOW = default_input("flow").replace(resize=None, crop=24, frames=8, fps=None)
EXACT = UNSCALED.replace(crop=32)
LOOPED = (0, 1, 2, 0, 1, 2, 0, 1)
THREE_STARTS = (0, 0, 0, 6, 6, 6, 12, 12, 12)  # three crops of each clip


def of_video(folder: Path, frames: Frames) -> Index:
    """Make an index of one lossless video."""
    path = write_video(folder / "a.mov", frames)
    entry = make_entry(probe(path), "a.mov", "wave", (None,) * 3, 1)
    return Index(folder, "x", "videos", ("wave",), (entry,))


def with_flow(index: Index, flow: Frames) -> Index:
    """Add flow to the video of an index."""
    np.save(index.root / "a.npy", flow)
    entry = replace(index.entries[0], flow=FlowEntry("a.npy", *flow.shape[:3]))
    return dataclasses.replace(index, entries=(entry,))


def columns_and_rows(count: int) -> Frames:
    """Return frames of 27x26 pixels whose red is the column, and whose green is the row."""
    frames = np.zeros((count, 26, 27, 3), np.uint8)
    frames[..., 0] = np.arange(27)
    frames[..., 1] = np.arange(26)[:, None]
    return frames


def reds(sample: Sample) -> list[list[int]]:
    """Return the red of each frame of each view of a `numbered` video: its index."""
    return sample.views["rgb"][:, 0, :, 0, 0].tolist()


def test_squash_and_intervals(tmp_path: Path) -> None:
    """Views are resized and sampled as the input says, at random and in order."""
    index = of_video(tmp_path, numbered(24, 26, 40))
    spec = SPEC.replace(resize_mode="squash", sampling="interval")
    middles = [3 * number + 1 for number in range(8)]
    expected = preprocess(read(index.root / "a.mov", middles).frames, spec)
    sample = VideoDataset(index, spec, sampling=CENTRE).sample(0, 0)
    view = normalise(sample.views["rgb"], spec)[0]
    torch.testing.assert_close(view, expected, atol=0.5 / 127.5 + 1e-6, rtol=0)
    data = VideoDataset(index, spec.replace(resize_mode="short", resize=None, crop=26))
    (drawn,) = reds(data.sample(0, 0))
    assert [red // 3 for red in drawn] == list(range(8))


def assert_same_views(data: VideoDataset, number: int = 0) -> None:
    """Assert that the pipeline makes the network's input as the loader does, to float rounding."""
    for stream, views in data[number].views.items():
        planned = torch.cat(list(load_plan(data.plan(stream, number))))
        expected = data.normalise(stream, views)
        torch.testing.assert_close(planned, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sampling", [CENTRE, WHOLE, Sampling("multi", 3, "three")])
def test_the_pipeline_makes_the_same_views(tmp_path: Path, sampling: Sampling) -> None:
    """Of videos of any kind, with any resizing and order of channels, and of a part of a video."""
    random = np.random.default_rng(0)
    flow = random.integers(0, 256, (19, 51, 37, 2), np.uint8)
    index = with_flow(of_video(tmp_path, random.integers(0, 256, (20, 50, 38, 3), np.uint8)), flow)
    pair = {"rgb": SPEC.replace(channels="bgr"), "flow": UNSCALED_FLOW.replace(resize=29)}
    assert_same_views(VideoDataset(index, pair, sampling=sampling))
    part = dataclasses.replace(index, entries=(replace(index.entries[0], start=0.2, end=0.7),))
    for spec in (UNSCALED, SPEC.replace(resize_mode="squash", sampling="interval", fps=12.5)):
        assert_same_views(VideoDataset(part, spec, sampling=sampling))


def in_order(data: VideoDataset, batch_size: int = 1, workers: int = 0) -> list[Batch]:
    """Load all samples in the order of the dataset."""
    numbers = range(len(data))
    batches = [(0, numbers[i : i + batch_size]) for i in range(0, len(data), batch_size)]
    return list(load_batches(data, batches, workers=workers))


class TestFrames:
    @pytest.mark.parametrize(
        ("count", "sampling", "expected"),
        [
            (20, CENTRE, [range(6, 14)]),
            (20, dataclasses.replace(MULTI, clips=3), [range(n, n + 8) for n in THREE_STARTS]),
            (20, WHOLE, [range(20)]),
            (3, WHOLE, [[0, 1, 2] * 3]),  # the network needs nine frames
            (3, TRAIN, [LOOPED]),
            (3, CENTRE, [LOOPED]),
            (3, MULTI, [LOOPED] * 3),
        ],
    )
    def test_sampling(
        self, tmp_path: Path, count: int, sampling: Sampling, expected: list[Sequence[int]]
    ) -> None:
        """Each sampling takes its frames; a short video is repeated from its first frame."""
        data = of_video(tmp_path, numbered(count))
        views = reds(VideoDataset(data, EXACT, sampling=sampling)[0])
        assert views == [list(row) for row in expected]

    def test_random_windows_reach_both_ends(self, tmp_path: Path) -> None:
        """Over the epochs every window is drawn, including the first and the last."""
        data = VideoDataset(of_video(tmp_path, numbered(12)), EXACT, sampling=TRAIN)
        starts = set()
        for epoch in range(60):
            row = reds(data.sample(epoch, 0))[0]
            assert row == list(range(row[0], row[0] + 8))
            starts.add(row[0])
        assert starts == {0, 1, 2, 3, 4}

    def test_rate(self, tmp_path: Path) -> None:
        """A network of 12.5 fps gets every second frame of 25 fps."""
        data = VideoDataset(of_video(tmp_path, numbered(20)), EXACT.replace(fps=12.5))
        assert reds(data[0]) == [[2, 4, 6, 8, 10, 12, 14, 16]]


class TestPixels:
    def test_as_predict_to_rounding(self, index: Index) -> None:
        """The normalised centre crop equals that of `preprocess` up to rounding."""
        data = VideoDataset(index, SPEC)
        info = index.info(index.entries[0])
        views = data[0].views["rgb"]
        first = (info.frames - 8) // 2
        truth = preprocess(read(info, range(first, first + 8)).frames, SPEC)
        difference = (normalise(views, SPEC)[0] - truth) * 127.5
        assert difference.abs().max() <= 1.01
        assert abs(float(difference.mean())) < 0.2  # halves are rounded up

    @pytest.mark.parametrize("tall", [False, True])
    def test_three_crops(self, tmp_path: Path, tall: bool) -> None:
        """The three squares are at both ends and in the middle of the long side."""
        frames = np.zeros((8, 32, 64, 3), np.uint8)
        frames[...] = np.arange(64)[None, None, :, None]
        if tall:
            frames = np.ascontiguousarray(frames.transpose(0, 2, 1, 3))
        data = VideoDataset(of_video(tmp_path, frames), UNSCALED, sampling=Sampling(crop="three"))
        assert data[0].views["rgb"][:, 0, 0, 0, 0].tolist() == [0, 20, 40]

    def test_random_crops_and_flips(self, tmp_path: Path) -> None:
        """Every corner is drawn, one for all frames of a clip; half of the samples are mirrored."""
        data = VideoDataset(of_video(tmp_path, columns_and_rows(8)), UNSCALED, sampling=TRAIN)
        corners, mirrored = set(), 0
        for epoch in range(100):
            views = data.sample(epoch, 0).views["rgb"]
            assert (views[0, :, 1:] == views[0, :, :1]).all()
            row = views[0, 0, 0, 0].tolist()
            mirrored += row[0] > row[-1]
            assert row in (sorted(row), sorted(row, reverse=True))
            corners.add((int(views[0, 1, 0, 0, 0]), min(row)))
        assert corners == {(top, left) for top in range(3) for left in range(4)}
        assert 30 < mirrored < 70

    def test_flip_negates_horizontal_flow(self, tmp_path: Path) -> None:
        """Mirroring negates x of the flow exactly, and leaves y."""
        flow = np.random.default_rng(0).integers(0, 256, (8, 24, 24, 2), np.uint8)
        entry = Entry("a.avi", "wave", frames=9, height=24, width=24)
        index = with_flow(Index(tmp_path, "x", "videos", ("wave",), (entry,)), flow)
        data = VideoDataset(index, UNSCALED_FLOW, sampling=TRAIN)
        mirrored = flow[:, :, ::-1].copy()
        mirrored[..., 0] = 255 - mirrored[..., 0]
        seen = set()
        for epoch in range(20):
            views = data.sample(epoch, 0).views["flow"]
            clip = views[0].permute(1, 2, 3, 0).numpy()
            assert any(np.array_equal(clip, truth) for truth in (flow, mirrored))
            seen.add(np.array_equal(clip, mirrored))
        assert seen == {True, False}
        straight, turned = (
            normalise(torch.from_numpy(a.copy()).permute(3, 0, 1, 2)[None], UNSCALED_FLOW)
            for a in (flow, mirrored)
        )
        torch.testing.assert_close(turned[:, 0], -straight[:, 0].flip(-1))
        torch.testing.assert_close(turned[:, 1], straight[:, 1].flip(-1))

    @pytest.mark.parametrize(
        ("mean", "std", "expected"),
        [
            ((0.5,) * 3, (0.5,) * 3, [-1.0, -0.6, 1.0]),
            ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), [-2.11790, -1.14286, 2.64]),
        ],
    )
    def test_normalise(
        self, mean: tuple[float, ...], std: tuple[float, ...], expected: list[float]
    ) -> None:
        """Red 0, green 51 and blue 255 are normalised to [-1, 1], and with ImageNet's numbers."""
        clips = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1, 1)
        normalised = normalise(clips, Input(mean=mean, std=std)).flatten()
        torch.testing.assert_close(normalised, torch.tensor(expected), atol=1e-4, rtol=0)

    def test_normalise_wants_bytes(self) -> None:
        """Floats, or the wrong number of channels, are refused."""
        with pytest.raises(ShapeError, match=r"torch\.uint8 \[N, 3.* found torch\.float32"):
            normalise(torch.zeros(1, 3, 2, 4, 4), SPEC)
        with pytest.raises(ShapeError, match=r"\[1, 2, 2, 4, 4\]"):
            normalise(torch.zeros(1, 2, 2, 4, 4, dtype=torch.uint8), SPEC)

    def test_too_small(self, index: Index) -> None:
        """Frames smaller than the crop are an error even if bad videos are skipped."""
        spec = Input(resize=None, crop=50, frames=8, fps=None)
        with pytest.raises(ShapeError, match="64x48 pixels are smaller than the crop of 50"):
            VideoDataset(index, spec, on_bad_video="skip")[0]
        with pytest.raises(ShapeError, match="short side of 32 is less than the crop 40"):
            VideoDataset(index, Input(resize=32, crop=40))


class TestRepeats:
    def test_whatever_the_number_of_workers(self, index: Index) -> None:
        """Epochs differ, and are the same without workers, with two workers, and with a cache."""
        plain = VideoDataset(index, SPEC, sampling=TRAIN, seed=5)
        cache = FrameCache(1 << 22)
        cached = VideoDataset(index, SPEC, sampling=TRAIN, seed=5, cache=cache)
        batches = [(epoch, b) for epoch in (0, 1) for b in epoch_batches(12, 4, 5, epoch)]
        expected = list(load_batches(plain, batches))
        for loaded in (load_batches(plain, batches, workers=2), load_batches(cached, batches)):
            for batch, truth in zip(loaded, expected, strict=True):
                assert torch.equal(batch.clips["rgb"], truth.clips["rgb"])
                assert torch.equal(batch.labels, truth.labels)
                assert batch.videos == truth.videos
        assert not torch.equal(expected[0].clips["rgb"], expected[3].clips["rgb"])
        assert expected[0].videos != expected[3].videos

    def test_streams_go_together(self, tmp_path: Path) -> None:
        """RGB and its flow, which is one frame shorter, have the same crop and mirroring."""
        frames = columns_and_rows(9)
        index = with_flow(of_video(tmp_path, frames), np.ascontiguousarray(frames[:8, :, :, 1::-1]))
        data = VideoDataset(index, {"rgb": UNSCALED, "flow": UNSCALED_FLOW}, sampling=TRAIN)
        seen = set()
        for epoch in range(40):
            views = data.sample(epoch, 0).views
            columns_seen, columns_of_flow = views["rgb"][0, 0, 0, 0], views["flow"][0, 1, 0, 0]
            assert torch.equal(columns_seen, columns_of_flow)
            seen.add(tuple(columns_seen[:2].tolist()))
        assert len(seen) == 8  # four places, mirrored or not

    def test_labels_and_memory(self, index: Index) -> None:
        """Labels follow the order of the classes, and clips are in channels-last memory order."""
        (batch,) = in_order(VideoDataset(index, SPEC), 12)
        assert batch.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
        assert batch.clips["rgb"].shape == (12, 3, 8, 24, 24)
        assert batch.clips["rgb"].is_contiguous(memory_format=torch.channels_last_3d)


class TestBatches:
    def test_views_average_to_videos(self, index: Index) -> None:
        """The logits of the views are averaged for each video."""
        sampling = Sampling("multi", clips=2, crop="three")
        batch = in_order(VideoDataset(index, SPEC, sampling=sampling), 2)[0]
        assert batch.views == (6, 6)
        scores = torch.arange(24.0).view(12, 2)
        torch.testing.assert_close(batch.mean(scores), scores.view(2, 6, 2).mean(1))

    def test_whole_videos_go_alone(self, index: Index) -> None:
        """Videos of different length cannot be in one batch."""
        data = VideoDataset(index, SPEC, sampling=WHOLE)
        with pytest.raises(ShapeError, match="batch size of 1"):
            in_order(data, 6)
        assert len(in_order(data, 1)) == 12


class TestBadVideos:
    @pytest.fixture
    def broken(self, tmp_path: Path) -> Index:
        """Twelve clips; the index marks 0 as unusable, and 1 was broken afterwards."""
        prepared = small_prepared(tmp_path)
        path = prepared.index.root / prepared.index.entries[1].file
        path.unlink()
        path.write_bytes(b"no video" * 100)
        first = replace(prepared.index.entries[0], error="is not a video")
        entries = (first, *prepared.index.entries[1:])
        return dataclasses.replace(prepared.index, entries=entries)

    def test_folders_without_frames(self, tmp_path: Path) -> None:
        """In TAO's layout, an empty folder of a video is named and counted."""
        for name in ("good", "none", "empty"):
            (tmp_path / "wave" / name).mkdir(parents=True)
        for name in ("good", "empty"):
            (tmp_path / "wave" / name / "rgb").mkdir()
        frame = Image.fromarray(np.zeros((32, 40, 3), np.uint8))
        for number in range(1, 11):
            frame.save(tmp_path / "wave" / "good" / "rgb" / f"{number:06d}.png")
        with pytest.raises(DatasetError, match=r"2 of 3 videos cannot be used, the first is wave/"):
            VideoDataset(tmp_path, SPEC)
        data = VideoDataset(tmp_path, SPEC, on_bad_video="skip")
        bad = [video for place in range(3) for video in data[place].bad]
        assert [video.file for video in bad] == ["wave/empty", "wave/none"]
        assert "holds no frames: it has neither rgb/ nor u/ and v/" in bad[1].reason
        with pytest.raises(DatasetError, match=r"holds neither index.jsonl nor folders"):
            VideoDataset(tmp_path / "wave", SPEC)

    def test_error(self, broken: Index) -> None:
        """By default, unusable videos of the index raise an error at once, others when read."""
        with pytest.raises(DatasetError, match=r"1 of 12 videos cannot .* --on-bad-video skip"):
            VideoDataset(broken, SPEC)
        usable = dataclasses.replace(broken, entries=broken.entries[1:])
        with pytest.raises(VideoError, match=r"brush_hair_clip_1\.avi: is not a video"):
            VideoDataset(usable, SPEC)[0]

    @pytest.mark.parametrize("workers", [0, 1])
    def test_skipped_and_counted(self, broken: Index, workers: int) -> None:
        """In evaluation, a bad video is left out of its batch, and the batch names it."""
        data = VideoDataset(broken, SPEC, on_bad_video="skip")
        batches = in_order(data, 2, workers)
        assert [len(batch) for batch in batches] == [0, 2, 2, 2, 2, 2]
        assert [Path(bad.file).name for bad in batches[0].bad] == [
            "brush_hair_clip_0.avi",
            "brush_hair_clip_1.avi",
        ]
        assert batches[0].bad[0].reason.endswith("is not a video")
        assert sum(len(batch.bad) for batch in batches) == 2
        assert batches[0].mean(torch.zeros(0, 51)).shape == (0, 51)

    def test_replaced_when_training(self, broken: Index) -> None:
        """In training, the next readable video replaces a bad one, with its own label.

        A video that the index marks as unusable is left out.
        """
        data = VideoDataset(broken, SPEC, sampling=TRAIN, on_bad_video="skip")
        assert [Path(bad.file).name for bad in data.unusable] == ["brush_hair_clip_0.avi"]
        sample = data[0]
        assert (sample.video, sample.label, len(sample.bad)) == (1, 0, 1)
        assert [len(batch) for batch in in_order(data, 4)] == [4, 4, 3]

    def test_all_bad(self, broken: Index) -> None:
        """A dataset without a good video is an error, not an endless search."""
        bad = dataclasses.replace(broken, entries=broken.entries[:2])
        data = VideoDataset(bad, SPEC, sampling=TRAIN, on_bad_video="skip")
        with pytest.raises(DatasetError, match="1 videos in a row cannot be read, the last"):
            data[0]
        bad = dataclasses.replace(broken, entries=broken.entries[:1])
        with pytest.raises(DatasetError, match=r"1 of 1 videos cannot .* \(is not a video\)$"):
            VideoDataset(bad, SPEC, sampling=TRAIN, on_bad_video="skip")


@pytest.mark.real_data
def test_real_clips(test_data: Path) -> None:
    """Every real video gives clips of the published input with each sampling."""
    folder = test_data / "clips"
    paths = sorted(folder.iterdir())
    entries = tuple(make_entry(probe(p), p.name, "a", (None,) * 3, p.stat().st_size) for p in paths)
    index = Index(folder, "real", "videos", ("a",), entries)
    spec = Input(resize=256, crop=224, frames=16)
    for number in range(len(paths)):
        for sampling in (TRAIN, CENTRE, Sampling("multi", 2, "three")):
            views = VideoDataset(index, spec, sampling=sampling)[number].views["rgb"]
            assert views.shape[1:] == (3, 16, 224, 224)
            assert views.float().std() > 3
        assert_same_views(VideoDataset(index, spec, sampling=sampling), number)
