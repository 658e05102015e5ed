"""What the page computes: jobs with progress, optical flow, and the words about both."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.run_folders import EVIL

from i3dzoo.app import view
from i3dzoo.app.jobs import Status, Update, follow
from i3dzoo.app.mistakes import read_mistakes
from i3dzoo.app.optical_flow import colours, compute_flow
from i3dzoo.app.previews import frame_times, write_preview
from i3dzoo.checkpoints.metadata import default_input
from i3dzoo.errors import OptionError, VideoError
from i3dzoo.evaluation.prediction_file import PredictionWriter
from i3dzoo.evaluation.predictions import PredictionHeader, VideoPrediction
from i3dzoo.progress import Progress
from i3dzoo.video import probe, read, read_index


def test_results_come_in_order_between_the_progress() -> None:
    """Every result is passed on; of the progress, only the latest of each moment."""

    def work(progress: Progress) -> Iterator[str]:
        progress.start("windows", 100, "items")
        yield "first"
        for number in range(100):
            progress.update(number + 1)
        yield "second"

    updates = list(follow(work, threading.Event()))
    assert [update.result for update in updates if update.result] == ["first", "second"]
    states = [update.status for update in updates if update.status]
    assert states[-1].done == 100
    assert len(states) < 20


def test_an_error_is_one_sentence_and_a_bug_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An error of i3dzoo is its message; another one is named, with its traceback in the log."""

    def fail(error: Exception) -> list[Update[str]]:
        def work(_: Progress) -> Iterator[str]:
            raise error
            yield ""

        return list(follow(work, threading.Event()))

    assert fail(VideoError("x.mp4: is empty")) == [
        Update(status=Status("x.mp4: is empty", kind="failed"))
    ]
    assert not caplog.records
    (update,) = fail(KeyError("x"))
    assert update.status is not None
    assert "stopped by an unexpected error (KeyError: 'x')" in (update.status.text)
    assert caplog.records[0].exc_info


def test_work_stops_when_the_user_wants_to() -> None:
    """Stop ends the work at its next step."""
    stop, steps = threading.Event(), []

    def work(progress: Progress) -> Iterator[str]:
        progress.start("endless", None, "items")
        while True:
            progress.update(len(steps))
            steps.append(1)
            yield "more"

    updates = follow(work, stop)
    next(updates)
    stop.set()
    assert list(updates)[-1].status == Status("Stopped.", kind="stopped")


def moving_square(path: Path, frames: int = 6) -> Path:
    """Write textured frames that move by 3 pixels to the right and 2 up from each to the next."""
    texture = np.random.default_rng(0).integers(0, 255, (30, 30), "u1")
    large = np.kron(texture, np.ones((4, 4), "u1"))
    images = [
        np.roll(large, (-2 * number, 3 * number), (0, 1))[10:90, 10:106] for number in range(frames)
    ]
    np.save(path, np.repeat(np.stack(images)[..., None], 3, axis=-1))
    return path


def test_flow_is_that_of_the_movement(tmp_path: Path) -> None:
    """A pattern that moves by (3, -2) is stored as 3 and -2 pixels, and shown in one hue."""
    pytest.importorskip("cv2", reason="the extra flow is not installed")
    info = probe(moving_square(tmp_path / "square.npy"))
    spec = default_input("flow").replace(resize=80, crop=64)
    flow = compute_flow(info, spec, "farneback", tmp_path, tmp_path / "flow.mp4", 60)
    stored = np.load(flow.path)
    assert stored.shape == (5, 80, 96, 2)
    assert stored.dtype == np.uint8
    pixels = np.median(stored[:, 20:60, 20:70] / 255 * 40 - 20, axis=(0, 1, 2))
    np.testing.assert_allclose(pixels, [3, -2], atol=0.3)
    shown = read(probe(tmp_path / "flow.mp4")).frames[2, 40, 48].astype(int)
    expected = colours(np.array([[[3, -2]]], "f4"))[0, 0].astype(int)
    assert np.abs(shown - expected).max() < 25


def test_flow_of_a_long_video_is_refused(tmp_path: Path) -> None:
    """Flow takes long, so the page says what to do instead of starting."""
    info = probe(moving_square(tmp_path / "square.npy"))
    with pytest.raises(
        VideoError, match=r"square.npy: lasts 0 s, .* at most 0.1 s: .* cut the video"
    ):
        compute_flow(info, None, "farneback", tmp_path, tmp_path / "flow.mp4", 0.1)
    assert not (tmp_path / "flow.mp4").exists()


def test_a_preview_has_the_frames_and_the_times_of_the_video(
    test_data: Path, tmp_path: Path
) -> None:
    """Every frame of a real clip is in the preview, at its time, and looks the same."""
    info = probe(test_data / "clips" / "TrumanShow_wave_f_nm_np1_fr_med_26.avi")
    preview = probe(write_preview(info, tmp_path / "clip.mp4"))
    assert preview.frames == info.frames
    np.testing.assert_allclose(frame_times(preview), frame_times(info), atol=1e-3)
    last = info.frames - 1
    pixels = [read(one, [last]).frames.astype("f4") for one in (info, preview)]
    assert np.abs(pixels[0] - pixels[1]).mean() < 6


def test_names_are_text_and_sentences_are_escaped() -> None:
    """What a file or a server says is no markup."""
    shown = view.status(Status(EVIL, kind="failed"))
    assert "<script" not in shown
    assert "<img" not in shown
    assert 'role="alert"' in shown
    assert "3 of 8, about 10 s left" in view.status(Status("windows", 3, 8, 10.4))


def test_predictions_of_evaluate_take_the_names_of_the_dataset(
    motions: Path, tmp_path: Path
) -> None:
    """Without a run.json, classes are called as in the prepared dataset, or by their numbers."""
    header = PredictionHeader("a" * 64, "center", "1")
    file = read_index(motions).entries[0].file
    with PredictionWriter(tmp_path / "predictions.jsonl", header) as writer:
        writer.write(VideoPrediction(file, 1, np.array([3, 1, 0], "f4")))
        writer.write(VideoPrediction("right", 0, np.array([3, 1, 0], "f4")))
    path = tmp_path / "predictions.jsonl"
    found = read_mistakes(path, motions)
    assert [wrong.video for wrong in found.wrong] == [file]
    assert found.label(1) == read_index(motions).classes[1]
    assert found.picture(file)[0].startswith(b"\xff\xd8")
    assert read_mistakes(path, None).label(1) == "class 1"
    with PredictionWriter(tmp_path / "many.jsonl", header) as writer:
        writer.write(VideoPrediction("x", (0, 1), np.array([3, 1, 0], "f4")))
    with pytest.raises(OptionError, match="several classes at once"):
        read_mistakes(tmp_path / "many.jsonl", None)
