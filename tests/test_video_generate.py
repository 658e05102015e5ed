"""Generated clips: their classes are in the motion, and nowhere else."""

import dataclasses
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from i3dzoo.errors import DatasetError
from i3dzoo.labels import labels
from i3dzoo.video import Frames, probe, read, read_splits
from i3dzoo.video.generate import CLIPS_FOLDER, LISTS_FOLDER, Shape, choose, generate, invent
from i3dzoo.video.motions import MOTIONS, render

from .video_data import SHAPE, small_lists

BY_NAME = {motion.name: motion for motion in MOTIONS}


def shift(first: Frames, second: Frames) -> tuple[int, int]:
    """Return how many pixels right and down the second frame is shifted, by phase correlation."""
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

    def test_one_frame_is_the_same_in_all_classes(self) -> None:
        """All motions of a seed share the frame at the anchor, bit for bit."""
        clips = [render(motion, (7,), 12, 32, 48) for motion in MOTIONS]
        anchor = clips[0][1]
        for clip, own in clips:
            assert own == anchor
            np.testing.assert_array_equal(clip[anchor], clips[0][0][anchor])

    def test_and_others_are_not(self) -> None:
        """Away from the anchor no two motions show the same."""
        clips = [render(motion, (7,), 12, 32, 48)[0] for motion in MOTIONS]
        assert len({clip.tobytes() for clip in clips}) == 51

    @pytest.mark.parametrize(
        ("name", "right", "down"),
        [("right fast", 1, 0), ("left fast", -1, 0), ("up fast", 0, -1), ("down right fast", 1, 1)],
    )
    def test_moves_as_it_is_called(self, name: str, right: int, down: int) -> None:
        """Four frames of "fast" move by 4 * 0.05 heights, within 15 % of pace, that way."""
        clip, _ = render(BY_NAME[name], (3,), 5, 120, 120)
        found = shift(clip[0], clip[4])
        length = 4 * 0.05 * 120 / np.hypot(right, down)
        for number, way in zip(found, (right, down), strict=True):
            assert abs(number - way * length) <= 0.16 * length + 1

    def test_a_frame_does_not_tell_the_class_and_motion_does(self) -> None:
        """Nearest neighbours of single frames guess; of differences of frames, they know more."""
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
    """Power by frequency and by direction: what a texture can give away."""
    power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
    y, x = np.meshgrid(np.fft.fftfreq(len(grey)), np.fft.fftfreq(len(grey)), indexing="ij")
    ring = np.minimum(np.hypot(x, y) * 16, 7).astype(int)
    angle = (np.arctan2(y, x) % np.pi / np.pi * 4).astype(int) % 4
    sums = [power[ring == r].sum() for r in range(8)] + [power[angle == a].sum() for a in range(4)]
    return [float(np.log(total + 1)) for total in sums] + [float(grey.mean() / 50)]


def _nearest(features: npt.NDArray[np.float64], truth: npt.NDArray[np.int64]) -> float:
    """Accuracy of leave-one-out classification by the 5 nearest neighbours."""
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    distance = np.linalg.norm(scaled[:, None] - scaled[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    votes = truth[np.argsort(distance, axis=1)[:, :5]]
    guesses = [int(np.bincount(row).argmax()) for row in votes]
    return float(np.mean(np.array(guesses) == truth))


class TestGenerate:
    def test_names_encoding_and_lists(self, tmp_path: Path) -> None:
        """Clips are DX50 with B-frames in an AVI, and the lists read back as they were."""
        lists = small_lists()
        assert generate(tmp_path, lists, SHAPE) == 12
        assert read_splits(tmp_path / LISTS_FOLDER, "hmdb51") == lists
        path = tmp_path / CLIPS_FOLDER / "wave" / "wave_clip_0.avi"
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
        """Clips that are there stay; one that was removed comes back the same, byte for byte."""
        generate(tmp_path, small_lists(), SHAPE)
        path = tmp_path / CLIPS_FOLDER / "wave" / "wave_clip_0.avi"
        data = path.read_bytes()
        path.unlink()
        assert generate(tmp_path, small_lists(), SHAPE) == 1
        assert path.read_bytes() == data

    def test_another_shape_is_refused(self, tmp_path: Path) -> None:
        """Clips of another seed, size or length are not mixed with those that are there."""
        generate(tmp_path, small_lists(2), SHAPE)
        message = "holds generated clips of 20 frames of 64x48 pixels, seed 0; 20 .* seed 1 is"
        with pytest.raises(DatasetError, match=message):
            generate(tmp_path, small_lists(), dataclasses.replace(SHAPE, seed=1))
        assert len(list(tmp_path.rglob("*.avi"))) == 6

    def test_processes_change_nothing(self, tmp_path: Path) -> None:
        """Two processes write the bytes that one writes."""
        for jobs in (1, 2):
            generate(tmp_path / str(jobs), small_lists(2), Shape(32, 32, 4), jobs=jobs)
        for path in (tmp_path / "1").rglob("*.avi"):
            assert (
                path.read_bytes()
                == (tmp_path / "2" / path.relative_to(tmp_path / "1")).read_bytes()
            )

    def test_invented_lists(self) -> None:
        """Made-up lists name 51 classes; 70 % train and 30 % test in each split."""
        lists = invent(10)
        assert (len(lists.classes), len(lists.clips)) == (51, 510)
        for split in (1, 2, 3):
            assert lists.count(split, "train") == 357
            assert lists.count(split, "test") == 153
        assert len({clip.roles for clip in lists.clips if clip.label == "wave"}) > 2

    def test_too_many_wanted(self) -> None:
        """More clips than a class has is an error that names the class."""
        with pytest.raises(DatasetError, match="brush_hair has 2 train clips in split 1"):
            choose(small_lists(), 10)

    def test_odd_size(self) -> None:
        """MPEG-4 takes even sizes."""
        with pytest.raises(DatasetError, match="63x48 pixels are wanted; expected even"):
            Shape(48, 63)

    def test_what_no_memory_holds(self) -> None:
        """Clips that could not be drawn are refused beforehand."""
        with pytest.raises(DatasetError, match="expected at most 200,000,000 pixels in a clip"):
            Shape(4_000_000, 4_000_000)

    def test_unknown_class(self) -> None:
        """A class that is none of HMDB51's is named, even if its name is empty."""
        with pytest.raises(DatasetError, match="'': is no class of HMDB51, such as brush_hair"):
            invent(2, ("run", ""))

    @pytest.mark.real_data
    def test_official_names(self, test_data: Path) -> None:
        """Ten clips a class of the official lists: 7 train and 3 test in split 1."""
        lists = choose(read_splits(test_data / "hmdb51_splits", "hmdb51"), 10)
        assert (lists.count(1, "train"), lists.count(1, "test")) == (357, 153)
        assert choose(read_splits(test_data / "hmdb51_splits", "hmdb51"), None).differences() == ()
