"""Features of videos: those of the network, in any engine, window by window, resumable."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from i3dzoo.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.engines import load_engine
from i3dzoo.errors import MetadataError, UnknownNameError
from i3dzoo.export.onnx import build
from i3dzoo.export.options import AXES, ExportOptions
from i3dzoo.export.runtime import OnnxEngine
from i3dzoo.features import extract
from i3dzoo.loading import build as network
from i3dzoo.video import load_clips, probe, sampling

from .exported import noisy
from .test_cli_export import run
from .video_files import numbered, write_video

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """An RGB network of 5 classes, of clips of 16 frames."""
    return noisy("rgb", 5)


@pytest.fixture(scope="module")
def file(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a canonical file."""
    return write_checkpoint(tmp_path_factory.mktemp("file") / "x.safetensors", checkpoint)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 40 frames."""
    return write_video(tmp_path_factory.mktemp("video") / "a.mov", numbered(40, 40, 56))


def test_windows_cover_the_video(checkpoint: Checkpoint, video: Path) -> None:
    """One vector a window, each what the network gives for those frames."""
    model = network(checkpoint)
    found = extract(model, video)
    info = probe(video)
    spec = checkpoint.metadata.input
    samples = sampling.resample(info, spec.fps)
    chosen = sampling.windows(samples, 16, 16)
    assert found.vectors.shape == (len(chosen), 1024)
    assert found.spans[0, 0] == 0
    assert found.spans[-1, 1] == pytest.approx(samples.duration)
    with torch.inference_mode():
        for vector, (_, pixels) in zip(found.vectors, load_clips(info, chosen, spec), strict=True):
            np.testing.assert_allclose(vector, model.features(pixels[None])[0].numpy(), atol=1e-5)
    mean = extract(model, video, mean=True)
    np.testing.assert_allclose(mean.vectors, found.vectors.mean(0, keepdims=True), atol=1e-6)
    assert len(extract(model, video, clips=2).vectors) == 2
    assert len(extract(model, video, stride=8).vectors) > len(found.vectors)


def test_any_endpoint(checkpoint: Checkpoint, video: Path) -> None:
    """A layer's activations are averaged over positions and time."""
    model = network(checkpoint)
    found = extract(model, video, endpoint="Mixed_4f", clips=1)
    assert found.vectors.shape == (1, 832)
    with pytest.raises(
        UnknownNameError, match="no endpoint is called 'Mixed_9z'; there are pooled"
    ):
        extract(model, video, endpoint="Mixed_9z")


def test_other_engines(checkpoint: Checkpoint, file: Path, video: Path) -> None:
    """Onnxruntime gives the same pooled features, and says so where it gives none."""
    expected = extract(network(checkpoint), video)
    found = extract(load_engine(file, "onnxruntime"), video)
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-4)
    bare = OnnxEngine(build([checkpoint], ExportOptions(AXES)).SerializeToString())
    with pytest.raises(MetadataError, match="gives no features; export it with --features"):
        extract(bare, video)
    with pytest.raises(UnknownNameError, match="not Mixed_4f; use --engine torch"):
        extract(bare, video, endpoint="Mixed_4f")


@pytest.mark.parametrize("kind", ["npy", "npz", "safetensors"])
def test_command(capsys: Capture, file: Path, video: Path, tmp_path: Path, kind: str) -> None:
    """Each video has a file; a bad one is reported, and what is there is not made again."""
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    (tmp_path / "list.txt").write_text(f"{video}\n\n{bad}\n")
    output = tmp_path / "out"
    common = ("features", "--model", file, "-o", output, "--format", kind, "--clips", 1, "--json")
    code, out, err = run(capsys, *common, "--list", tmp_path / "list.txt")
    assert code == 1
    good, failed = json.loads(out)["videos"]
    assert good["shape"] == [1, 1024]
    assert "bad.mp4" in failed["error"]
    assert "1 of 2 videos failed" in err
    path = output / f"a.{kind}"
    if kind == "npy":
        assert np.load(path).shape == (1, 1024)
    else:
        arrays = np.load(path) if kind == "npz" else load_file(path)
        assert arrays["features"].shape == (1, 1024)
        assert arrays["spans"].shape == (1, 2)
    written = path.stat().st_mtime_ns
    assert run(capsys, *common, video)[0] == 0
    assert path.stat().st_mtime_ns == written
    code, _, err = run(capsys, *common, video, "--endpoint", "Mixed_4f")
    assert code == 1
    assert "holds other features (features.json says which); name another folder" in err


def test_tensorflow_prefix(
    capsys: Capture, checkpoint: Checkpoint, video: Path, tmp_path: Path
) -> None:
    """A model that is a prefix or a folder of TensorFlow's files is known by its index."""
    tensors = {
        name: np.ones_like(array) if name.endswith("bn.weight") else array
        for name, array in checkpoint.tensors.items()
    }
    (tmp_path / "tf").mkdir()
    plain = dataclasses.replace(checkpoint, tensors=tensors)
    write_checkpoint(tmp_path / "tf" / "model.ckpt.index", plain, "deepmind")
    common = ("features", video, "-o", tmp_path / "out", "--clips", 1)
    for model in ("tf/model.ckpt", "tf"):
        code, _, err = run(capsys, *common, "--model", tmp_path / model)
        assert code == 0, err


def test_another_video_of_the_name(
    capsys: Capture, file: Path, video: Path, tmp_path: Path
) -> None:
    """Features of one video are not handed out as those of another whose name is like it."""
    other = write_video(tmp_path / "a.mov", numbered(20, 40, 56))
    (tmp_path / "elsewhere").mkdir()
    common = ("features", "--model", file, "-o", tmp_path / "out", "--clips", 1)
    for _ in range(2):
        assert run(capsys, *common, video)[0] == 0
    code, _, err = run(capsys, *common, other)
    assert code == 1
    assert f"a.npy: is of another video than {other}; remove it, or name another folder" in err
    elsewhere = shutil.copy(video, tmp_path / "elsewhere" / video.name)
    assert run(capsys, *common, elsewhere)[0] == 0  # the same one


def test_what_gives_nothing_claims_no_folder(
    capsys: Capture, file: Path, video: Path, tmp_path: Path
) -> None:
    """After a run that wrote no features, the folder is free for any others."""
    common = ("features", video, "--model", file, "-o", tmp_path, "--clips", 1)
    assert run(capsys, *common, "--endpoint", "Mixed_9z")[0] == 1
    assert run(capsys, *common)[0] == 0


def test_names_that_collide(capsys: Capture, file: Path, tmp_path: Path) -> None:
    """Two videos that would be written to one file are refused before any work."""
    arguments = ("features", "a/x.mp4", "b/x.mp4", "--model", file, "-o", tmp_path / "out")
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert "would both be written to" in err
    assert not (tmp_path / "out").exists()
