"""Predicting a dataset: each video once, the same however the work is divided."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from i3dzoo.evaluate import one_by_one, parse_protocol, predict_videos
from i3dzoo.metadata import Input, Stream
from i3dzoo.training.predictions import Prediction, PredictionWriter, Run
from i3dzoo.training.team import Team, predict_together
from i3dzoo.video import BadVideo, VideoDataset
from i3dzoo.video.index import Index

from .video_data import small_prepared

SPEC = Input(resize=48, crop=32, frames=9, fps=None)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Twelve generated videos."""
    return small_prepared(tmp_path_factory.mktemp("evaluate")).index


def network(clips: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Give three numbers that differ from clip to clip."""
    clip = clips["rgb"]
    return torch.stack([clip.mean((1, 2, 3, 4)), clip[:, 0, 0, 3, 5], clip.std((1, 2, 3, 4))], 1)


def predict(index: Index, protocol: str, **options: object) -> list[Prediction]:
    """Predict all videos."""
    datasets: dict[Stream, VideoDataset] = {
        "rgb": VideoDataset(index, SPEC, sampling=parse_protocol(protocol), on_bad_video="skip")
    }
    run = options.pop("run", one_by_one(network))
    return list(predict_videos(run, datasets, **options))  # type: ignore[arg-type] # options


@pytest.mark.parametrize("protocol", ["center", "paper", "multi:2x3"])
def test_the_division_of_the_work_changes_nothing(index: Index, protocol: str) -> None:
    """Batches of any size and any number of workers and processes give the same predictions."""
    expected = predict(index, protocol, batch_size=1)
    assert len(expected) == 12
    found = predict(index, protocol, batch_size=5, workers=2)
    assert [one.video for one in found] == [one.video for one in expected]
    assert [one.clips for one in found] == [one.clips for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.logits, other.logits, rtol=1e-5)
    shares = [predict(index, protocol, batch_size=5, rank=rank, world=5) for rank in range(5)]
    assert sorted(one.video for own in shares for one in own) == sorted(
        one.video for one in expected
    )


def ahead(batches: Iterable[Mapping[str, torch.Tensor]]) -> Iterator[torch.Tensor]:
    """Take two batches more before giving the logits of one, as engines on GPUs do."""
    flying: deque[torch.Tensor] = deque()
    for batch in batches:
        flying.append(network(batch))
        if len(flying) > 2:
            yield flying.popleft()
    yield from flying


@pytest.mark.parametrize("protocol", ["center", "paper", "multi:2x3"])
def test_what_runs_the_network_may_be_behind(index: Index, protocol: str) -> None:
    """Logits that come later still go to the videos that they are of."""
    expected = predict(index, protocol, batch_size=5)
    found = predict(index, protocol, batch_size=5, run=ahead)
    assert [(one.video, one.clips) for one in found] == [(one.video, one.clips) for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)


def test_what_is_done_and_what_is_bad_is_passed_over(tmp_path: Path) -> None:
    """A video that is done is not predicted again, and a broken one leaves no prediction."""
    index = small_prepared(tmp_path).index
    files = [entry.file for entry in index.entries]
    broken = index.info(index.entries[4], "rgb").path
    broken.unlink()
    broken.write_bytes(b"no video")
    bad: list[BadVideo] = []
    done = {files[0], files[7]}
    found = predict(index, "center", batch_size=4, done=done, workers=1, skipped=bad.append)
    assert [one.video for one in found] == [
        file for number, file in enumerate(files) if number not in (0, 4, 7)
    ]
    assert [one.file for one in bad] == [files[4]]
    assert "is no video that FFmpeg can read" in bad[0].reason


def test_parts_of_killed_processes_are_taken_up(index: Index, tmp_path: Path) -> None:
    """What other processes had predicted before a kill is not predicted again, nor counted twice.

    The parts are of three processes, one of which had already been taken into the file.
    """
    run = Run("a" * 64, "center", "1")
    every = predict(index, "center", batch_size=4)
    path = tmp_path / "x.jsonl"
    for name, own in (("x.jsonl", every[:3]), ("x.jsonl.1.part", every[2:5]), ("y.jsonl", [])):
        with PredictionWriter(tmp_path / name, run) as writer:
            for one in own:
                writer.write(one)
    (tmp_path / "x.jsonl.2.part").touch()
    asked: list[set[str]] = []

    def left(done: set[str]) -> Iterator[Prediction]:
        asked.append(set(done))
        return iter(predict(index, "center", batch_size=4, done=done))

    counted: list[int] = []
    found = predict_together(Team("cpu"), path, run, left, counted.append)
    assert asked == [{one.video for one in every[:5]}]
    assert counted[-1] == 12
    assert sorted(found.videos) == sorted(one.video for one in every)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x.jsonl", "y.jsonl"]
    again = predict_together(Team("cpu"), path, run, lambda _: iter([]))
    assert again.videos == found.videos
