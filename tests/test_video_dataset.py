"""Samples and batches: which frames, which pixels, and always the same ones."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from i3dzoo.errors import DatasetError, ShapeError, VideoError
from i3dzoo.metadata import Input, default_input
from i3dzoo.video import (
    CENTRE,
    MULTI,
    TRAIN,
    WHOLE,
    Batch,
    Entry,
    FrameCache,
    Index,
    Sampling,
    VideoDataset,
    collate,
    loader,
    normalise,
    preprocess,
    read,
    together,
)
from i3dzoo.video.decode import probe
from i3dzoo.video.index import FlowEntry, describe

from .video_data import small_prepared
from .video_files import numbered, write_video

SPEC = Input(resize=32, crop=24, frames=8, fps=None)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Twelve generated clips of three classes."""
    return small_prepared(tmp_path_factory.mktemp("dataset")).index


def of_numbers(folder: Path, count: int, height: int = 48, width: int = 64) -> Index:
    """One lossless video whose frame i has red i."""
    path = write_video(folder / "a.mov", numbered(count, height, width))
    entry = describe(probe(path), "a.mov", "wave", (None,) * 3, 1)
    return Index(folder, "x", "videos", ("wave",), (entry,))


def reds(views: torch.Tensor | None) -> list[list[int]]:
    """Return the red of each frame of each view of a `numbered` video: its index."""
    assert views is not None
    return views[:, 0, :, 0, 0].tolist()


class TestFrames:
    EXACT = Input(resize=None, crop=32, frames=8, fps=None)

    def test_centre(self, tmp_path: Path) -> None:
        """The middle window: 20 frames leave 12, six on either side."""
        data = of_numbers(tmp_path, 20)
        assert reds(VideoDataset(data, self.EXACT)[0].views) == [list(range(6, 14))]

    def test_multi(self, tmp_path: Path) -> None:
        """Windows at even steps, three crops of each, clip by clip."""
        data = of_numbers(tmp_path, 20)
        sampling = Sampling("multi", clips=3, crop="three")
        found = reds(VideoDataset(data, self.EXACT, sampling=sampling)[0].views)
        assert [row[0] for row in found] == [0, 0, 0, 6, 6, 6, 12, 12, 12]
        assert all(row == list(range(row[0], row[0] + 8)) for row in found)

    def test_whole(self, tmp_path: Path) -> None:
        """All frames as one clip."""
        data = of_numbers(tmp_path, 20)
        found = VideoDataset(data, self.EXACT, sampling=WHOLE)[0]
        assert reds(found.views) == [list(range(20))]

    @pytest.mark.parametrize("sampling", [TRAIN, CENTRE, MULTI])
    def test_short_videos_loop(self, tmp_path: Path, sampling: Sampling) -> None:
        """Three frames fill a clip of eight, over and over, from the first."""
        data = of_numbers(tmp_path, 3)
        for row in reds(VideoDataset(data, self.EXACT, sampling=sampling)[0].views):
            assert row == [0, 1, 2, 0, 1, 2, 0, 1]

    def test_whole_has_what_the_network_needs(self, tmp_path: Path) -> None:
        """A whole video of three frames is looped to nine."""
        found = VideoDataset(of_numbers(tmp_path, 3), self.EXACT, sampling=WHOLE)[0]
        assert reds(found.views) == [[0, 1, 2] * 3]

    def test_random_windows_reach_both_ends(self, tmp_path: Path) -> None:
        """Over the epochs every window is drawn, the first and the last too, and each is whole."""
        data = VideoDataset(of_numbers(tmp_path, 12), self.EXACT, sampling=TRAIN)
        starts = set()
        for epoch in range(60):
            data.set_epoch(epoch)
            row = reds(data[0].views)[0]
            assert row == list(range(row[0], row[0] + 8))
            starts.add(row[0])
        assert starts == {0, 1, 2, 3, 4}

    def test_rate(self, tmp_path: Path) -> None:
        """A network of 12.5 fps gets every second frame of 25 fps."""
        spec = dataclasses.replace(self.EXACT, fps=12.5)
        assert reds(VideoDataset(of_numbers(tmp_path, 20), spec)[0].views) == [
            [2, 4, 6, 8, 10, 12, 14, 16]
        ]


class TestPixels:
    def test_as_predict_to_rounding(self, index: Index) -> None:
        """The centre crop, normalised, is what `preprocess` makes, but for a level of rounding."""
        data = VideoDataset(index, SPEC)
        info = index.info(index.entries[0])
        views = data[0].views
        assert views is not None
        first = (info.frames - 8) // 2
        truth = preprocess(read(info, range(first, first + 8)).frames, SPEC)
        difference = (normalise(views, SPEC)[0] - truth) * 127.5
        assert difference.abs().max() <= 1.01
        assert abs(float(difference.mean())) < 0.2  # halves are rounded up

    @pytest.mark.parametrize("tall", [False, True])
    def test_three_crops(self, tmp_path: Path, tall: bool) -> None:
        """The three squares are the ends and the middle of the long side."""
        frames = np.zeros((8, 32, 64, 3), np.uint8)
        frames[...] = np.arange(64)[None, None, :, None]
        if tall:
            frames = np.ascontiguousarray(frames.transpose(0, 2, 1, 3))
        path = write_video(tmp_path / "a.mov", frames)
        entry = describe(probe(path), "a.mov", "wave", (None,) * 3, 1)
        data = Index(tmp_path, "x", "videos", ("wave",), (entry,))
        spec = Input(resize=None, crop=24, frames=8, fps=None)
        views = VideoDataset(data, spec, sampling=Sampling(crop="three"))[0].views
        assert views is not None
        assert views[:, 0, 0, 0, 0].tolist() == [0, 20, 40]

    def test_random_crops_and_flips(self, tmp_path: Path) -> None:
        """Every corner is drawn, one for all frames of a clip; half the samples are mirrored."""
        frames = np.zeros((8, 26, 27, 3), np.uint8)
        frames[..., 0] = np.arange(27)
        frames[..., 1] = np.arange(26)[:, None]
        path = write_video(tmp_path / "a.mov", frames)
        entry = describe(probe(path), "a.mov", "wave", (None,) * 3, 1)
        index = Index(tmp_path, "x", "videos", ("wave",), (entry,))
        spec = Input(resize=None, crop=24, frames=8, fps=None)
        data = VideoDataset(index, spec, sampling=TRAIN)
        corners, mirrored = set(), 0
        for epoch in range(100):
            data.set_epoch(epoch)
            views = data[0].views
            assert views is not None
            assert (views[0, :, 1:] == views[0, :, :1]).all()
            row = views[0, 0, 0, 0].tolist()
            mirrored += row[0] > row[-1]
            assert row in (sorted(row), sorted(row, reverse=True))
            corners.add((int(views[0, 1, 0, 0, 0]), min(row)))
        assert corners == {(top, left) for top in range(3) for left in range(4)}
        assert 30 < mirrored < 70

    def test_flip_negates_horizontal_flow(self, tmp_path: Path) -> None:
        """A mirrored flow moves the other way: x is negated exactly, and y is not."""
        flow = np.random.default_rng(0).integers(0, 256, (8, 24, 24, 2), np.uint8)
        np.save(tmp_path / "a.npy", flow)
        entry = Entry("a.avi", "wave", frames=9, height=24, width=24)
        entry = dataclasses.replace(entry, flow=FlowEntry("a.npy", 8, 24, 24))
        index = Index(tmp_path, "x", "videos", ("wave",), (entry,))
        spec = dataclasses.replace(default_input("flow"), resize=None, crop=24, frames=8, fps=None)
        data = VideoDataset(index, spec, sampling=TRAIN)
        mirrored = flow[:, :, ::-1].copy()
        mirrored[..., 0] = 255 - mirrored[..., 0]
        seen = set()
        for epoch in range(20):
            data.set_epoch(epoch)
            views = data[0].views
            assert views is not None
            found = views[0].permute(1, 2, 3, 0).numpy()
            assert any(np.array_equal(found, truth) for truth in (flow, mirrored))
            seen.add(np.array_equal(found, mirrored))
        assert seen == {True, False}
        straight, turned = (
            normalise(torch.from_numpy(a.copy()).permute(3, 0, 1, 2)[None], spec)
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
        """Red 0, green 51, blue 255 in [-1, 1], and by ImageNet's numbers."""
        clips = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1, 1)
        found = normalise(clips, Input(mean=mean, std=std)).flatten()
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)

    def test_normalise_wants_bytes(self) -> None:
        """Floats, or the wrong number of channels, are refused."""
        with pytest.raises(ShapeError, match=r"torch\.float32 .*expected torch\.uint8 \[N, 3"):
            normalise(torch.zeros(1, 3, 2, 4, 4), SPEC)
        with pytest.raises(ShapeError, match=r"\[1, 2, 2, 4, 4\]"):
            normalise(torch.zeros(1, 2, 2, 4, 4, dtype=torch.uint8), SPEC)

    def test_too_small(self, index: Index) -> None:
        """Frames smaller than the crop are an error even where bad videos are skipped."""
        spec = Input(resize=None, crop=50, frames=8, fps=None)
        with pytest.raises(ShapeError, match="64x48 pixels are smaller than the crop of 50"):
            VideoDataset(index, spec, on_bad_video="skip")[0]
        with pytest.raises(ShapeError, match="short side of 32 is less than the crop 40"):
            VideoDataset(index, Input(resize=32, crop=40))


def epoch_of(data: VideoDataset, epoch: int, workers: int) -> list[Batch]:
    """Return all batches of an epoch."""
    data.set_epoch(epoch)
    return list(loader(data, 4, workers, shuffle=True))


class TestRepeats:
    def test_whatever_the_number_of_workers(self, index: Index) -> None:
        """Two epochs come the same with no worker, with two, and with a cache; and they differ."""
        plain = VideoDataset(index, SPEC, sampling=TRAIN, seed=5)
        truth = [epoch_of(plain, epoch, 0) for epoch in (0, 1)]
        cache = FrameCache(1 << 22)
        held = VideoDataset(index, SPEC, sampling=TRAIN, seed=5, cache=cache)
        worked = loader(plain, 4, 2, shuffle=True)  # its workers live on through both epochs
        for epoch in (0, 1):
            plain.set_epoch(epoch)
            for found in (list(worked), epoch_of(held, epoch, 0)):
                for batch, expected in zip(found, truth[epoch], strict=True):
                    assert torch.equal(batch.clips, expected.clips)
                    assert torch.equal(batch.videos, expected.videos)
                    assert torch.equal(batch.labels, expected.labels)
        assert not torch.equal(truth[0][0].clips, truth[1][0].clips)
        assert [b.videos.tolist() for b in truth[0]] != [b.videos.tolist() for b in truth[1]]

    def test_streams_go_together(self, tmp_path: Path) -> None:
        """RGB and the flow of one frame less are cropped and mirrored alike, whatever is drawn."""
        columns = np.broadcast_to(np.arange(27, dtype=np.uint8), (9, 26, 27))
        rows = np.broadcast_to(np.arange(26, dtype=np.uint8)[:, None], (9, 26, 27))
        path = write_video(tmp_path / "a.mov", np.stack([columns, rows, rows], axis=-1))
        np.save(tmp_path / "a.npy", np.stack([rows, columns], axis=-1)[:8])
        entry = describe(probe(path), "a.mov", "wave", (None,) * 3, 1)
        entry = dataclasses.replace(entry, flow=FlowEntry("a.npy", 8, 26, 27))
        index = Index(tmp_path, "x", "videos", ("wave",), (entry,))
        rgb = Input(resize=None, crop=24, frames=8, fps=None)
        flow = dataclasses.replace(default_input("flow"), resize=None, crop=24, frames=8, fps=None)
        datasets = [VideoDataset(index, spec, sampling=TRAIN) for spec in (rgb, flow)]
        seen = set()
        for epoch in range(40):
            samples = together(datasets, 0, epoch)
            views = [sample.views for sample in samples if sample.views is not None]
            columns_seen, columns_of_flow = views[0][0, 0, 0, 0], views[1][0, 1, 0, 0]
            assert torch.equal(columns_seen, columns_of_flow)
            seen.add(tuple(columns_seen[:2].tolist()))
        assert len(seen) == 8  # four places, mirrored or not

    def test_processes_share_the_videos(self, index: Index) -> None:
        """Evaluating, three processes see each video once; training, equally many."""
        data = VideoDataset(index, SPEC)
        parts = [loader(data, 2, rank=rank, world=5) for rank in range(5)]
        seen = [batch.videos.tolist() for part in parts for batch in part]
        assert sorted(number for batch in seen for number in batch) == list(range(12))
        parts = [loader(data, 1, rank=rank, world=5, shuffle=True) for rank in range(5)]
        assert {len(part) for part in parts} == {3}

    def test_labels_and_memory(self, index: Index) -> None:
        """Labels count in the order of the classes; batches are in the order of GPUs' liking."""
        batch = next(iter(loader(VideoDataset(index, SPEC), 12)))
        assert batch.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
        assert batch.clips.shape == (12, 3, 8, 24, 24)
        assert batch.clips.is_contiguous(memory_format=torch.channels_last_3d)


class TestBatches:
    def test_views_average_to_videos(self, index: Index) -> None:
        """Scores of a batch's views are averaged video by video."""
        sampling = Sampling("multi", clips=2, crop="three")
        batch = next(iter(loader(VideoDataset(index, SPEC, sampling=sampling), 2)))
        assert batch.owners.tolist() == [0] * 6 + [1] * 6
        scores = torch.arange(24.0).view(12, 2)
        torch.testing.assert_close(batch.mean(scores), scores.view(2, 6, 2).mean(1))

    def test_whole_videos_go_alone(self, index: Index) -> None:
        """Videos of different length cannot be in one batch."""
        data = VideoDataset(index, SPEC, sampling=WHOLE)
        with pytest.raises(ShapeError, match="use a batch size of 1"):
            collate([data[number] for number in range(6)])
        assert len(list(loader(data, 1))) == 12


class TestBadVideos:
    @pytest.fixture
    def broken(self, tmp_path: Path) -> Index:
        """Twelve clips; 0 was called unusable by the index, 1 was broken since."""
        prepared = small_prepared(tmp_path)
        path = prepared.index.root / prepared.index.entries[1].file
        path.unlink()
        path.write_bytes(b"no video" * 100)
        first = dataclasses.replace(prepared.index.entries[0], error="is no video")
        entries = (first, *prepared.index.entries[1:])
        return dataclasses.replace(prepared.index, entries=entries)

    def test_folders_without_frames(self, tmp_path: Path) -> None:
        """In TAO's layout, a video's folder with nothing in it is named and counted."""
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
        bad = [one for place in range(3) for one in data[place].bad]
        assert [one.file for one in bad] == ["wave/empty", "wave/none"]
        assert "holds no frames: it has neither rgb/ nor u/ and v/" in bad[1].reason
        with pytest.raises(DatasetError, match=r"holds neither index.jsonl nor folders"):
            VideoDataset(tmp_path / "wave", SPEC)

    def test_error(self, broken: Index) -> None:
        """The default stops: at once for what the index knows, else at the video, named."""
        with pytest.raises(DatasetError, match=r"1 of 12 videos cannot .* --on-bad-video skip"):
            VideoDataset(broken, SPEC)
        usable = dataclasses.replace(broken, entries=broken.entries[1:])
        with pytest.raises(VideoError, match=r"brush_hair_clip_1\.avi: is no video"):
            VideoDataset(usable, SPEC)[0]

    @pytest.mark.parametrize("workers", [0, 1])
    def test_skipped_and_counted(self, broken: Index, workers: int) -> None:
        """Evaluating, a bad video is left out of its batch, and named."""
        data = VideoDataset(broken, SPEC, on_bad_video="skip")
        batches = list(loader(data, 2, workers))
        assert [len(batch) for batch in batches] == [0, 2, 2, 2, 2, 2]
        assert [Path(bad.file).name for bad in batches[0].bad] == [
            "brush_hair_clip_0.avi",
            "brush_hair_clip_1.avi",
        ]
        assert batches[0].bad[0].reason.endswith("is no video")
        assert sum(len(batch.bad) for batch in batches) == 2
        assert batches[0].mean(torch.zeros(0, 51)).shape == (0, 51)

    def test_replaced_when_training(self, broken: Index) -> None:
        """Training, the next video that can be read takes the place, with its own label.

        One that the index calls unusable has no place.
        """
        data = VideoDataset(broken, SPEC, sampling=TRAIN, on_bad_video="skip")
        assert [Path(bad.file).name for bad in data.unusable] == ["brush_hair_clip_0.avi"]
        sample = data[0]
        assert (sample.index, sample.label, len(sample.bad)) == (1, 0, 1)
        assert [len(batch) for batch in loader(data, 4)] == [4, 4, 3]

    def test_all_bad(self, broken: Index) -> None:
        """A dataset without one good video ends with an error, not in an endless search."""
        bad = dataclasses.replace(broken, entries=broken.entries[:2])
        data = VideoDataset(bad, SPEC, sampling=TRAIN, on_bad_video="skip")
        with pytest.raises(DatasetError, match="1 videos in a row cannot be read, the last"):
            data[0]
        bad = dataclasses.replace(broken, entries=broken.entries[:1])
        with pytest.raises(
            DatasetError, match=r"1 of 1 videos cannot be used, .* \(is no video\)$"
        ):
            VideoDataset(bad, SPEC, sampling=TRAIN, on_bad_video="skip")


@pytest.mark.real_data
def test_real_clips(test_data: Path) -> None:
    """Every real video gives clips of the published input, by each way of sampling."""
    folder = test_data / "clips"
    paths = sorted(folder.iterdir())
    entries = tuple(describe(probe(p), p.name, "a", (None,) * 3, p.stat().st_size) for p in paths)
    index = Index(folder, "real", "videos", ("a",), entries)
    spec = Input(resize=256, crop=224, frames=16)
    for number in range(len(paths)):
        for sampling in (TRAIN, CENTRE, Sampling("multi", 2, "three")):
            views = VideoDataset(index, spec, sampling=sampling)[number].views
            assert views is not None
            assert views.shape[1:] == (3, 16, 224, 224)
            assert views.float().std() > 3
