"""Generated clips: only their motion shows the class."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from helpers.video_data import SHAPE, small_lists
from msgspec.structs import replace

from i3dzoo.checkpoints.labels import labels
from i3dzoo.errors import DatasetError
from i3dzoo.video import Frames, probe, read, read_splits
from i3dzoo.video.generate import CLIPS_FOLDER, LISTS_FOLDER, Shape, choose, generate, invent
from i3dzoo.video.motions import MOTIONS, render

BY_NAME = {motion.name: motion for motion in MOTIONS}


def shift(first: Frames, second: Frames) -> tuple[int, int]:
    """Return the shift of the second frame right and down in pixels, by phase correlation."""
    planes = [np.fft.fft2(frame.mean(axis=-1) - frame.mean()) for frame in (first, second)]
    cross = planes[1] * planes[0].conj()
    peak = np.fft.ifft2(cross / (np.abs(cross) + 1e-9)).real
    down, right = np.unravel_index(int(peak.argmax()), peak.shape)
    height, width = peak.shape
    return (int(right) + width // 2) % width - width // 2, (
        int(down) + height // 2
    ) % height - height // 2


class TestMotions:
    def test_as_many_as_classes(self) -> None:
        """HMDB51 has 51 classes, and there are 51 different motions."""
        assert len(labels("hmdb51")) == len(MOTIONS) == len(set(MOTIONS)) == 51

    def test_only_one_frame_is_the_same_in_all_classes(self) -> None:
        """All motions of a seed share the frame at the anchor, bit for bit, and no clip."""
        clips = [render(motion, (7,), 12, 32, 48) for motion in MOTIONS]
        anchor = clips[0][1]
        for clip, own in clips:
            assert own == anchor
            np.testing.assert_array_equal(clip[anchor], clips[0][0][anchor])
        assert len({clip.tobytes() for clip, _ in clips}) == 51

    @pytest.mark.parametrize(
        ("name", "right", "down"),
        [("right fast", 1, 0), ("left fast", -1, 0), ("up fast", 0, -1), ("down right fast", 1, 1)],
    )
    def test_moves_as_it_is_called(self, name: str, right: int, down: int) -> None:
        """Four frames of "fast" move by 4 * 0.05 heights in the named direction, to within 15 %."""
        clip, _ = render(BY_NAME[name], (3,), 5, 120, 120)
        shifts = shift(clip[0], clip[4])
        length = 4 * 0.05 * 120 / np.hypot(right, down)
        for number, way in zip(shifts, (right, down), strict=True):
            assert abs(number - way * length) <= 0.16 * length + 1

    def test_a_frame_does_not_tell_the_class_and_motion_does(self) -> None:
        """Nearest neighbours of single frames are at chance, those of differences are not."""
        names = ("still", "right fast", "turning clockwise fast", "growing fast")
        frames, changes, truth = [], [], []
        for label, name in enumerate(names):
            for seed in range(40):
                clip, _ = render(BY_NAME[name], (label, seed), 9, 32, 32)
                grey = clip.astype(np.float64).mean(axis=-1)
                frames.append(_spectrum(grey[8]))
                changes.append([np.abs(grey[8] - grey[7]).mean() / grey.std()])
                truth.append(label)
        assert _nearest(np.array(frames), np.array(truth)) < 0.4  # chance is 0.25
        assert _nearest(np.array(changes), np.array(truth)) > 0.5


def _spectrum(grey: npt.NDArray[np.float64]) -> list[float]:
    """Return the power by frequency and by direction, which could reveal the class."""
    power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
    y, x = np.meshgrid(np.fft.fftfreq(len(grey)), np.fft.fftfreq(len(grey)), indexing="ij")
    ring = np.minimum(np.hypot(x, y) * 16, 7).astype(int)
    angle = (np.arctan2(y, x) % np.pi / np.pi * 4).astype(int) % 4
    sums = [power[ring == r].sum() for r in range(8)] + [power[angle == a].sum() for a in range(4)]
    return [float(np.log(total + 1)) for total in sums] + [float(grey.mean() / 50)]


def _nearest(features: npt.NDArray[np.float64], truth: npt.NDArray[np.int64]) -> float:
    """Return the leave-one-out accuracy of the 5 nearest neighbours."""
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    distance = np.linalg.norm(scaled[:, None] - scaled[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    votes = truth[np.argsort(distance, axis=1)[:, :5]]
    guesses = [int(np.bincount(row).argmax()) for row in votes]
    return float(np.mean(np.array(guesses) == truth))


class TestGenerate:
    def test_names_encoding_and_lists(self, source: Path) -> None:
        """Clips are DX50 with B-frames in an AVI, and the lists can be read back."""
        assert len(list(source.rglob("*.avi"))) == 12
        assert read_splits(source / LISTS_FOLDER, "hmdb51") == small_lists()
        path = source / CLIPS_FOLDER / "wave" / "wave_clip_0.avi"
        with av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            assert (context.name, context.codec_tag) == ("mpeg4", "DX50")
            assert context.has_b_frames
        info = probe(path)
        assert (info.height, info.width, info.fps) == (48, 64, 30.0)
        assert 12 <= info.frames <= 28
        assert info.warnings == ()
        assert read(info).frames.std() > 10

    def test_again_makes_only_what_is_gone(self, tmp_path: Path) -> None:
        """Existing clips are kept; a removed clip is made again, byte for byte."""
        assert generate(tmp_path, small_lists(), SHAPE) == 12
        path = tmp_path / CLIPS_FOLDER / "wave" / "wave_clip_0.avi"
        data = path.read_bytes()
        path.unlink()
        assert generate(tmp_path, small_lists(), SHAPE) == 1
        assert path.read_bytes() == data

    def test_another_shape_is_refused(self, tmp_path: Path) -> None:
        """Clips of another seed, size or length are not mixed with existing ones."""
        generate(tmp_path, small_lists(2), SHAPE)
        message = (
            "holds generated clips of 20 frames of 64x48 pixels, seed 0; expected 20 .* seed 1"
        )
        with pytest.raises(DatasetError, match=message):
            generate(tmp_path, small_lists(), replace(SHAPE, seed=1))
        assert len(list(tmp_path.rglob("*.avi"))) == 6

    def test_processes_change_nothing(self, tmp_path: Path) -> None:
        """Two processes write the same bytes as one."""
        for jobs in (1, 2):
            generate(tmp_path / str(jobs), small_lists(2), Shape(32, 32, 4), jobs=jobs)
        for path in (tmp_path / "1").rglob("*.avi"):
            other = tmp_path / "2" / path.relative_to(tmp_path / "1")
            assert path.read_bytes() == other.read_bytes()

    def test_invented_lists(self) -> None:
        """Invented lists have 51 classes, with 70 % training and 30 % test clips in each split."""
        lists = invent(10)
        assert (len(lists.classes), len(lists.clips)) == (51, 510)
        for split in (1, 2, 3):
            assert lists.count(split, "train") == 357
            assert lists.count(split, "test") == 153
        assert len({clip.roles for clip in lists.clips if clip.label == "wave"}) > 2

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (
                lambda: choose(small_lists(), 10),
                "brush_hair has 2 train clips in split 1; expected 7",
            ),
            (lambda: Shape(48, 63), "expected a width and height of even .* found 63x48"),
            (lambda: Shape(4_000_000, 4_000_000), "expected clips of at most 200,000,000 pixels"),
            (lambda: invent(2, ("run", "")), "HMDB51 has no class ''; expected brush_hair"),
        ],
    )
    def test_impossible_clips(self, call: Callable[[], object], message: str) -> None:
        """More clips than a class has, odd or huge sizes, and unknown classes are refused."""
        with pytest.raises(DatasetError, match=message):
            call()

    @pytest.mark.real_data
    def test_official_names(self, test_data: Path) -> None:
        """Ten clips a class of the official lists: 7 train and 3 test in split 1."""
        lists = choose(read_splits(test_data / "hmdb51_splits", "hmdb51"), 10)
        assert (lists.count(1, "train"), lists.count(1, "test")) == (357, 153)
        assert choose(read_splits(test_data / "hmdb51_splits", "hmdb51"), None).differences() == ()
