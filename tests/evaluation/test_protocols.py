"""Predicting a dataset: each video once, the same however the work is divided."""

from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.video_data import small_prepared
from torch import Tensor

from i3dzoo.checkpoints.metadata import Input
from i3dzoo.distributed import ProcessGroup
from i3dzoo.errors import DeviceError, I3DZooError, ShapeError
from i3dzoo.evaluation.predictions import VideoPrediction
from i3dzoo.evaluation.protocols import parse_protocol, predict_dataset
from i3dzoo.training.validation import predict_validation
from i3dzoo.video import BadVideo, VideoDataset
from i3dzoo.video.index import Index

SPEC = Input(resize=40, crop=32, frames=9, fps=None)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Twelve generated videos."""
    return small_prepared(tmp_path_factory.mktemp("evaluate")).index


def network(clip: Tensor) -> Tensor:
    """Give three numbers that differ from clip to clip."""
    return torch.stack([clip.mean((1, 2, 3, 4)), clip[:, 0, 0, 3, 5], clip.std((1, 2, 3, 4))], 1)


def ahead(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Take two batches more before giving the logits of one, as engines on GPUs do."""
    flying: deque[Tensor] = deque()
    for batch in batches:
        flying.append(network(batch))
        if len(flying) > 2:
            yield flying.popleft()
    yield from flying


def dataset_of(index: Index, protocol: str) -> VideoDataset:
    """Return all videos with their views."""
    return VideoDataset(index, SPEC, sampling=parse_protocol(protocol), on_bad_video="skip")


def predict(index: Index, protocol: str, **options: object) -> list[VideoPrediction]:
    """Predict all videos as `evaluate` does."""
    dataset = dataset_of(index, protocol)
    forward = options.pop("forward", partial(map, network))
    return list(predict_dataset(forward, dataset, **options))  # type: ignore[arg-type] # options


def validate(index: Index, protocol: str, **options: object) -> list[VideoPrediction]:
    """Predict all videos as the validation of `finetune` does."""
    dataset = dataset_of(index, protocol)
    return list(predict_validation(lambda clips: network(clips["rgb"]), dataset, **options))  # type: ignore[arg-type] # options


@pytest.mark.parametrize("protocol", ["center", "paper", "multi:2x3"])
def test_the_division_of_the_work_changes_nothing(index: Index, protocol: str) -> None:
    """Any sizes of batches, workers, processes and engines that lag give the same predictions.

    The validation of `finetune`, which reads videos by the loader of training, gives them too.
    """
    expected = predict(index, protocol, batch_size=1)
    assert len(expected) == 12
    others = [
        predict(index, protocol, batch_size=5, workers=2),
        predict(index, protocol, batch_size=5, workers=0, forward=ahead),
        validate(index, protocol, batch_size=5, workers=2),
        validate(index, protocol, batch_size=1),
    ]
    for predictions in others:
        for row, other in zip(predictions, expected, strict=True):
            assert (row.video, row.clips) == (other.video, other.clips)
            np.testing.assert_allclose(row.logits, other.logits, rtol=1e-5, atol=1e-6)
    groups = (ProcessGroup(rank, 5) for rank in range(5))
    shares = [predict(index, protocol, batch_size=5, processes=group) for group in groups]
    videos = sorted(row.video for share in shares for row in share)
    assert videos == sorted(row.video for row in expected)


def test_what_is_done_and_what_is_bad_is_passed_over(tmp_path: Path) -> None:
    """A video that is done is not predicted again, and a broken one leaves no prediction."""
    index = small_prepared(tmp_path).index
    files = [entry.file for entry in index.entries]
    broken = index.info(index.entries[4], "rgb").path
    broken.unlink()
    broken.write_bytes(b"no video")
    bad: list[BadVideo] = []
    done = {files[0], files[7]}
    rows = predict(index, "center", batch_size=4, done=done, workers=1, skipped=bad.append)
    kept = [file for number, file in enumerate(files) if number not in (0, 4, 7)]
    assert [row.video for row in rows] == kept
    assert [video.file for video in bad] == [files[4]]
    assert "is not a video that FFmpeg can read" in bad[0].reason
    rows = validate(index, "center", batch_size=4, workers=1, skipped=bad.append)
    assert [row.video for row in rows] == [*files[:4], *files[5:]]
    assert bad[0] == bad[1]


def test_errors_that_are_not_of_a_video(index: Index) -> None:
    """An input that does not fit the videos, and a network that fails, are errors without skips."""

    def failing(batches: Iterable[Tensor]) -> Iterator[Tensor]:
        for _ in batches:
            raise DeviceError("the GPU failed")
        yield from ()

    large = VideoDataset(index, SPEC.replace(resize=None, crop=50), on_bad_video="skip")
    errors: list[tuple[type[I3DZooError], str, VideoDataset]] = [
        (ShapeError, "64x48 pixels are smaller than the crop of 50", large),
        (DeviceError, "the GPU failed", dataset_of(index, "center")),
    ]
    for error, message, dataset in errors:
        with pytest.raises(error, match=message):
            list(predict_dataset(failing, dataset))
