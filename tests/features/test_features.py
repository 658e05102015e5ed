"""Features of videos: windows, endpoints, engines, and folders of features."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.cli import run
from helpers.processes import stopped
from helpers.video_files import numbered, write_video
from safetensors.numpy import load_file

import i3dzoo
from i3dzoo.checkpoints.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.checkpoints.metadata import Input, Metadata, Source
from i3dzoo.engines.base import load_engine
from i3dzoo.engines.onnxruntime import OnnxEngine
from i3dzoo.errors import MetadataError, OutputError, UnknownNameError
from i3dzoo.features import (
    Extractor,
    Features,
    FeatureSettings,
    extract,
    extract_to_folder,
    extract_video,
)
from i3dzoo.onnx.model import build_model
from i3dzoo.onnx.options import AXES, ExportOptions
from i3dzoo.pretrained import build as network
from i3dzoo.video import BadVideo, load_clips, probe, sampling

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 40 frames."""
    return write_video(tmp_path_factory.mktemp("video") / "a.mov", numbered(40, 40, 56))


def test_windows_cover_the_video(rgb: Checkpoint, video: Path) -> None:
    """Each window has the features of its frames; windows cover the video from end to end."""
    model = network(rgb)
    features = extract_video(model, video)
    info = probe(video)
    spec = rgb.metadata.input
    samples = sampling.resample(info, spec.fps)
    chosen = sampling.windows(samples, 16, 16)
    assert features.vectors.shape == (len(chosen), 1024)
    assert features.spans[0, 0] == 0
    assert features.spans[-1, 1] == pytest.approx(samples.duration)
    with torch.inference_mode():
        for vector, (_, pixels) in zip(
            features.vectors, load_clips(info, chosen, spec), strict=True
        ):
            np.testing.assert_allclose(vector, model.features(pixels[None])[0].numpy(), atol=1e-5)
    mean = extract_video(model, video, mean=True)
    np.testing.assert_allclose(mean.vectors, features.vectors.mean(0, keepdims=True), atol=1e-6)
    assert len(extract_video(model, video, clips=2).vectors) == 2
    assert len(extract_video(model, video, stride=8).vectors) > len(features.vectors)


def test_looped_video_is_said(rgb: Checkpoint, tmp_path: Path) -> None:
    """A video that is shorter than a window has the note that `predict` has."""
    short = write_video(tmp_path / "short.mov", numbered(5, 40, 56))
    note = extract_video(network(rgb), short).notes[-1]
    assert note == "5 frames looped 3.2x to fill a clip of 16"


def test_any_endpoint(rgb: Checkpoint, video: Path) -> None:
    """The activations of a layer are averaged over time and positions."""
    model = network(rgb)
    features = extract_video(model, video, endpoint="Mixed_4f", clips=1)
    assert features.vectors.shape == (1, 832)
    with pytest.raises(UnknownNameError, match="no endpoint 'Mixed_9z'; expected pooled or"):
        extract_video(model, video, endpoint="Mixed_9z")


def test_other_engines(rgb: Checkpoint, rgb_file: Path, video: Path) -> None:
    """Onnxruntime returns the same pooled features, and no other endpoint."""
    expected = extract_video(network(rgb), video)
    features = extract_video(load_engine(rgb_file, "onnxruntime"), video)
    np.testing.assert_allclose(features.vectors, expected.vectors, atol=1e-4)
    bare = OnnxEngine(build_model([rgb], ExportOptions(dynamic=AXES)).SerializeToString())
    with pytest.raises(MetadataError, match="has no features; export it with --features"):
        extract_video(bare, video)
    with pytest.raises(UnknownNameError, match=r"not Mixed_4f; use .* --engine torch"):
        extract_video(bare, video, endpoint="Mixed_4f")


def test_videos(rgb: Checkpoint, video: Path, tmp_path: Path) -> None:
    """Each video has a result in order: its features, or the reason why there are none."""
    model, gone = network(rgb), tmp_path / "gone.mp4"
    bad, good = i3dzoo.extract(model, [gone, video], clips=1)
    assert isinstance(bad, BadVideo)
    assert bad.file == str(gone)
    assert isinstance(good, Features)
    assert good.path == video
    np.testing.assert_array_equal(good.vectors, extract_video(model, video, clips=1).vectors)
    with pytest.raises(UnknownNameError, match="no endpoint 'Mixed_9z'"):
        next(extract(model, [video], endpoint="Mixed_9z"))


@pytest.mark.parametrize("kind", ["npy", "npz", "safetensors"])
def test_command(capsys: Capture, rgb_file: Path, video: Path, tmp_path: Path, kind: str) -> None:
    """Each video has a file; a bad video is reported, and existing files are kept."""
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    (tmp_path / "list.txt").write_text(f"{video}\n\n{bad}\n")
    output = tmp_path / "out"
    common = (
        "features",
        "--model",
        rgb_file,
        "-o",
        output,
        "--format",
        kind,
        "--clips",
        1,
        "--json",
    )
    code, out, err = run(capsys, *common, "--list", tmp_path / "list.txt")
    assert code == 1
    good, failed = json.loads(out)["videos"]
    assert good["shape"] == [1, 1024]
    assert "bad.mp4" in failed["error"]
    assert err.count("bad.mp4") == 1
    assert "i3dzoo: " in err
    assert "2 videos: 1 extracted, 0 kept, 1 failed" in err
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
    assert "features of another model or of other options" in err


def test_tensorflow_prefix(capsys: Capture, rgb: Checkpoint, video: Path, tmp_path: Path) -> None:
    """A TensorFlow checkpoint can be named by its prefix or its folder."""
    tensors = {
        name: np.ones_like(array) if name.endswith("bn.weight") else array
        for name, array in rgb.tensors.items()
    }
    (tmp_path / "tf").mkdir()
    plain = dataclasses.replace(rgb, tensors=tensors)
    write_checkpoint(tmp_path / "tf" / "model.ckpt.index", plain, "deepmind")
    common = ("features", video, "-o", tmp_path / "out", "--clips", 1)
    for model in ("tf/model.ckpt", "tf"):
        code, _, err = run(capsys, *common, "--model", tmp_path / model)
        assert code == 0, err


def test_another_video_of_the_name(
    capsys: Capture, rgb_file: Path, video: Path, tmp_path: Path
) -> None:
    """A file of features is not taken for that of another video with the same name."""
    other = write_video(tmp_path / "a.mov", numbered(20, 40, 56))
    (tmp_path / "elsewhere").mkdir()
    common = ("features", "--model", rgb_file, "-o", tmp_path / "out", "--clips", 1)
    for _ in range(2):
        assert run(capsys, *common, video)[0] == 0
    code, _, err = run(capsys, *common, other)
    assert code == 1
    assert f"a.json: describes the features of another video than {other}" in err
    elsewhere = shutil.copy(video, tmp_path / "elsewhere" / video.name)
    assert run(capsys, *common, elsewhere)[0] == 0  # the same video


def test_run_without_features(capsys: Capture, rgb_file: Path, video: Path, tmp_path: Path) -> None:
    """After a run that wrote no features, the folder is free for other features."""
    common = ("features", video, "--model", rgb_file, "-o", tmp_path, "--clips", 1)
    assert run(capsys, *common, "--endpoint", "Mixed_9z")[0] == 1
    assert run(capsys, *common)[0] == 0


def test_names_that_collide(
    capsys: Capture, rgb_file: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders are kept where they hold videos of one name, suffixes where only these differ."""
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.mov", "b/x.mov", "b/x.mp4", "b/y.mov"):
        Path(name).parent.mkdir(exist_ok=True)
        shutil.copy(video, name)
    common = ("features", "--model", rgb_file, "--clips", 1, "-o")
    code, _, err = run(capsys, *common, "out", "a/x.mov", "b/x.mov", "b/x.mp4", "./b/../a/x.mov")
    assert code == 0, err
    assert "1 video is repeated; each is used once" in err
    assert "written to the same folders, as in out/a/x.json" in err
    assert files("out") == ["a/x.npy", "b/x.mov.npy", "b/x.mp4.npy"]
    described = json.loads(Path("out/b/x.mp4.json").read_bytes())
    assert described["video"]["path"] == "b/x.mp4"
    assert described["files"] == {"b/x.mp4.npy": [1, 1024]}
    code, _, err = run(capsys, *common, "kept", "b/y.mov", tmp_path / "a/x.mov", "--keep-folders")
    assert code == 0, err
    assert "repeated" not in err
    assert files("kept") == sorted(["b/y.npy", f"{tmp_path.relative_to('/')}/a/x.npy"])
    code, _, err = run(capsys, *common, "kept", "b/y.mov", "--keep-folders", "--stride", 8)
    assert code == 2


def files(folder: str) -> list[str]:
    """Return the files of features in a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.npy"))


def test_notes(capsys: Capture, rgb_file: Path, video: Path, tmp_path: Path) -> None:
    """The notes that `predict` prints are printed, unless they are in the JSON document."""
    cut = tmp_path / "cut.mov"
    cut.write_bytes(video.read_bytes())
    common = ("features", cut, "--model", rgb_file, "--clips", 1, "-o", tmp_path / "out")
    code, _, err = run(capsys, *common)
    assert code == 0
    assert "cut.mov: 1 window of 16 frames" in err
    (tmp_path / "out" / "cut.json").unlink()
    code, out, err = run(capsys, *common, "--json")
    assert code == 0
    assert "windows" not in err
    assert json.loads(out)["videos"][0]["notes"][-1] == "1 window of 16 frames"


@pytest.mark.skipif(os.name != "posix", reason="there are no such locks")
def test_two_processes(capsys: Capture, rgb_file: Path, video: Path, tmp_path: Path) -> None:
    """Two commands share a folder: no video is lost from the record, and one waits for the other.

    The first command is stopped while it extracts a; meanwhile, this process extracts b.
    """
    out, other = tmp_path / "out", write_video(tmp_path / "b.mov", numbered(20, 40, 56))
    (tmp_path / "c").mkdir()
    another = write_video(tmp_path / "c" / "a.mov", numbered(21, 40, 56))
    common = ("features", "--model", rgb_file, "--clips", 1, "-o", out)
    with stopped(*common, video, at=out / ".a.json.lock") as first:
        assert run(capsys, *common, other)[0] == 0
        assert sorted(path.name for path in out.glob("*.npy")) == ["b.npy"]
        waiting = subprocess.Popen(
            [sys.executable, "-m", "i3dzoo", *map(str, (*common, video))],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr is not None
        assert f"a.json: process {first.pid} on" in waiting.stderr.readline()
    with waiting:
        assert "windows" not in waiting.stderr.read()  # it has not extracted them again
    assert waiting.returncode == 0
    code, _, err = run(capsys, *common, another)
    assert code == 1
    assert f"a.json: describes the features of another video than {another}" in err
    assert sorted(path.name for path in out.iterdir()) == [
        "a.json",
        "a.npy",
        "b.json",
        "b.npy",
        "features.yaml",
    ]


def test_record_replaced_by_another_process(rgb: Checkpoint, video: Path, tmp_path: Path) -> None:
    """A run stops if another one has recorded another model."""
    record, extractor = tmp_path / "features.yaml", Extractor(network(rgb), FeatureSettings())
    models = {"rgb": {"sha256": "mine"}}
    results = extract_to_folder(extractor, {str(video): "a"}, tmp_path, models=models)

    extract_videos = extractor.extract

    def extract_meanwhile(videos: Iterable[str], **options: object) -> Iterator[object]:
        record.write_text(record.read_text().replace("mine", "other"))
        yield from extract_videos(videos, **options)  # type: ignore[arg-type] # as they were given

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractor, "extract", extract_meanwhile)
        with pytest.raises(OutputError, match="another model"):
            next(results)
    assert not (tmp_path / "a.npy").exists()


class Watching:
    """An engine that counts the results that are still in memory at each window."""

    fixed_frames = False

    def __init__(self, spec: Input) -> None:
        source = Source("canonical", "0" * 64)
        self.metadata = Metadata("rgb", 0, None, spec, source)
        self.device = torch.device("cpu")
        self.results: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
        self.most = self.windows = 0

    def check_endpoint(self, endpoint: str) -> None:
        """Accept every endpoint."""

    def stream(self, clips: Iterable[torch.Tensor], _: str | None) -> Iterator[torch.Tensor]:
        """Yield the mean of each clip."""
        for clip in clips:
            self.windows += len(clip)
            result = clip.mean((2, 3, 4))
            self.results.add(result)
            yield result
            del result
            self.most = max(self.most, len(self.results))


def test_no_window_is_kept(tmp_path: Path) -> None:
    """However long the video is, one result is in memory besides the array of all.

    Small results that were kept between the large tensors of the network fragmented the memory.
    """
    spec = Input(resize=None, crop=8, frames=16)
    kept = []
    for windows in (10, 40):
        np.save(tmp_path / "a.npy", np.zeros((16 * windows, 8, 8, 3), np.uint8))
        engine = Watching(spec)
        extracted = extract_video(engine, tmp_path / "a.npy")  # type: ignore[arg-type] # less than an engine
        assert extracted.vectors.shape == (windows, 3)
        assert engine.windows == windows
        kept.append(engine.most)
    assert max(kept) <= 1
