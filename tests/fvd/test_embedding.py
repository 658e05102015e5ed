"""The network of FVD: its weights, its precision, and memory over many videos."""

import dataclasses
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.pixel_embedder import PixelEmbedder
from helpers.video_files import write_video

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.errors import OptionError
from i3dzoo.fvd import Embedder, embed_videos, load_protocol
from i3dzoo.fvd.sources import Known, open_source
from i3dzoo.pretrained import build


def test_features_are_the_logits(rgb: Checkpoint) -> None:
    """The mean of the logits over time, in float32 without TF32; settings are restored."""
    embedder = Embedder(build(rgb))
    seen = []

    def record(*_: object) -> None:
        seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32))

    hook = embedder.network.get_submodule("Mixed_5c").register_forward_hook(record)
    before = torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32
    clips = torch.rand(2, 3, 17, 32, 32)
    features = embedder.embed(clips)
    hook.remove()
    assert seen == [(True, False)]
    assert before == (torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32)
    with torch.inference_mode():
        expected = embedder.network.step_logits(clips).mean(1)
    torch.testing.assert_close(features, expected)


def test_weights_are_named(rgb: Checkpoint, embedder: Embedder) -> None:
    """The digest is of the weights alone; other weights than the definition's get a remark."""
    assert embedder.note is None
    other, same = Embedder(build(rgb)), Embedder(build(rgb))
    assert "not those of the definition, rgb_scratch" in str(other.note)
    assert other.digest == same.digest != embedder.digest


@pytest.mark.parametrize("change", [{"std": (1.0, 1.0, 1.0)}, {"channels": "bgr"}])
def test_other_networks(rgb: Checkpoint, change: dict[str, Any]) -> None:
    """A network for another input is refused."""
    spec = rgb.metadata.input.replace(**change)
    other = dataclasses.replace(rgb, metadata=rgb.metadata.replace(input=spec))
    with pytest.raises(OptionError, match="input is RGB from -1 to 1; the model's is"):
        Embedder(build(other))


def test_folder_is_read_as_an_array_is(tmp_path: Path) -> None:
    """Videos that are decoded ahead give the features of their frames in an array."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 20, 48, 64, 3), np.uint8)
    folder = tmp_path / "videos"
    folder.mkdir()
    for number, video in enumerate(frames):
        write_video(folder / f"{number}.mov", video)
    write_video(folder / "short.mov", frames[0, :8])
    np.save(tmp_path / "videos.npy", frames)
    protocol = load_protocol("tf").replace(
        frames=12, clips_per_video=2, offset="random", short_videos="skip"
    )
    embedder = PixelEmbedder()
    embedded = [
        embed_videos(embedder, source, protocol, [9])
        for source in (open_source(folder), open_source(tmp_path / "videos.npy"))
        if not isinstance(source, Known)
    ]
    assert embedded[0].short == (str(folder / "short.mov"),)
    assert embedded[0].fps == {25.0}
    for frames_of_clip in (9, 12):
        first, second = (result.statistics[frames_of_clip] for result in embedded)
        assert first.count == 6
        np.testing.assert_allclose(first.sample, second.sample, atol=1e-6)
        np.testing.assert_allclose(first.scatter, second.scatter, atol=1e-6)


@pytest.mark.parametrize(
    ("few", "many"), [(20, 150), pytest.param(300, 10_000, marks=pytest.mark.slow)]
)
def test_memory_is_flat(tmp_path: Path, few: int, many: int) -> None:
    """Many videos, of 5 MB each as input, take no more memory than few."""
    path = tmp_path / "videos.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (many, 9, 8, 8, 3), np.uint8))
    protocol, videos = load_protocol("tf").replace(frames=9), open_source(path)
    peaks = []
    for count in (few, many):
        embed_videos(PixelEmbedder(), videos, protocol.replace(videos=count))  # type: ignore[arg-type]
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert peaks[1] - peaks[0] < 40_000  # kB
