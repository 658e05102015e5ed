"""Each preset against its tool's rule, computed in a few lines with the plain network."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.exported import noisy, responsive
from helpers.video_files import write_video

from i3dzoo.arrays import Array
from i3dzoo.checkpoints.metadata import Input
from i3dzoo.features import Extractor, extract_to_folder, feature_preset, feature_preset_names
from i3dzoo.features import settings_with as preset_settings
from i3dzoo.network.architecture import Variant
from i3dzoo.pretrained import InceptionI3d, build
from i3dzoo.video.flow import quantise, to_grey

EDGE = 32  # the crop of the small networks
Shape = tuple[int, ...]


@pytest.fixture(scope="module")
def frames() -> Array:
    """24 frames of 340x256 pixels, which most presets take as they are: noise that drifts."""
    random = np.random.default_rng(0)
    canvas = cv2.resize(random.integers(0, 256, (40, 60, 3), dtype=np.uint8), (364, 268))
    return np.stack([canvas[k // 2 : k // 2 + 256, k : k + 340] for k in range(24)])


@pytest.fixture(scope="module")
def video(frames: Array, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frames in a lossless file of 25 fps."""
    return write_video(tmp_path_factory.mktemp("video") / "x.mov", frames)


@pytest.fixture(scope="module")
def model() -> InceptionI3d:
    """The plain network."""
    return build(responsive("rgb", 5))


@pytest.fixture(scope="module")
def flow_model() -> InceptionI3d:
    """A seeded network of optical flow."""
    return build(responsive("flow", 5))


class Made:
    """What a preset wrote for a video."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.document: dict[str, Any] = json.loads((folder / "x.json").read_bytes())
        self.rows = [(row["first_frame"], row["last_frame"]) for row in self.document["rows"]]

    def array(self, name: str, shape: Shape, dtype: str = "float32") -> Array:
        """Read a .npy file of this shape and type."""
        array: Array = np.load(self.folder / name)
        assert (array.shape, array.dtype) == (shape, dtype)
        return array

    def files(self) -> list[str]:
        """The files beside the record of the folder."""
        return sorted(path.name for path in self.folder.iterdir() if path.suffix != ".yaml")


def make(
    folder: Path, preset: str, models: list[InceptionI3d], video: Path, **given: object
) -> Made:
    """Write the features of a video by a preset."""
    extractor = Extractor(models, preset_settings(preset, given))
    models_sha = {stream: {"sha256": "0"} for stream in extractor.engines}
    (result,) = extract_to_folder(extractor, {str(video): "x"}, folder, models=models_sha)
    assert result.error is None
    return Made(folder)


def features(model: InceptionI3d, clip: Array, function: str = "features") -> Array:
    """Run the plain network on pixels [T, 32, 32, C] that are normalised already."""
    x = torch.from_numpy(np.ascontiguousarray(clip.transpose(3, 0, 1, 2)[None], np.float32))
    with torch.inference_mode():
        output: Array = getattr(model, function)(x)[0].numpy()
    return output


def scaled(pixels: Array) -> Array:
    """Pixels 0..255 as -1..1."""
    return pixels.astype("f4") * 2 / 255 - 1


def centre(images: Array, edge: int = EDGE) -> Array:
    """The square in the middle."""
    top, left = (images.shape[1] - edge) // 2, (images.shape[2] - edge) // 2
    return images[:, top : top + edge, left : left + edge]


def ten(images: Array) -> list[Array]:
    """oversample_data of the extractor for THUMOS'14, with squares of 32 instead of 224."""
    squares = []
    for side in (images, images[:, :, ::-1]):
        squares += [side[:, :EDGE, :EDGE], side[:, :EDGE, -EDGE:], centre(side)]
        squares += [side[:, -EDGE:, :EDGE], side[:, -EDGE:, -EDGE:]]
    return squares


def flow_of(images: Array) -> Array:
    """Optical flow of resized frames by Farnebäck's method; that of the last frame is repeated."""
    grey = to_grey(images)
    fields = [
        cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 15, 3, 5, 1.2, 0)  # type: ignore[call-overload] # OpenCV's types lack None
        for a, b in pairwise(grey)
    ]
    return quantise(np.stack([*fields, fields[-1]]))


def close(actual: Array, expected: Array | list[Array]) -> None:
    """Compare features by the norm of the difference."""
    wanted = np.asarray(expected)
    assert actual.shape == wanted.shape
    assert np.linalg.norm(actual - wanted) <= 1e-4 * np.linalg.norm(wanted)


def test_video_features(model: InceptionI3d, frames: Array, video: Path, tmp_path: Path) -> None:
    """Windows that 65 (here 17) frames hold, Pillow's resize, epsilon 1e-5, and four files."""
    made = make(tmp_path, "video-features", [model], video, window=16, stride=4)
    assert made.files() == ["x.json", "x_fps.npy", "x_rgb.npy", "x_timestamps_ms.npy"]
    network = InceptionI3d(5, variant=Variant(epsilon=1e-5)).eval()
    network.load_state_dict(model.state_dict())
    clips = scaled(centre(frames))
    expected = [features(network, clips[start : start + 16]) for start in (0, 4)]
    close(made.array("x_rgb.npy", (2, 1024), "float64"), expected)
    assert made.rows == [(0, 15), (4, 19)]
    assert made.array("x_fps.npy", (), "float64") == 25
    times = made.array("x_timestamps_ms.npy", (2,), "float64")
    np.testing.assert_allclose(times, [640, 800])
    with pytest.raises(AssertionError):  # the epsilon of the checkpoint gives other numbers
        close(features(model, clips[:16]), expected[0])


@pytest.mark.parametrize("preset", ["cmcs-thumos", "ten-crop"])
def test_ten_crops(
    model: InceptionI3d, frames: Array, video: Path, tmp_path: Path, preset: str
) -> None:
    """The tool's ten squares, and its order of axes and names."""
    made = make(tmp_path, preset, [model], video)
    stride = {"cmcs-thumos": 4, "ten-crop": 16}[preset]
    starts = range(0, (24 - 16) // stride * stride + 1, stride)
    squares = [scaled(square) for square in ten(frames)]
    assert made.rows == [(start, start + 15) for start in starts]
    if preset == "ten-crop":
        expected = [features(model, square[:16]) for square in squares]
        close(made.array("x.npy", (1, 10, 1024))[0], expected)
        return
    with np.load(tmp_path / "x-rgb.npz") as arrays:
        assert sorted(arrays.files) == ["feature", "frame_cnt", "video_name"]
        assert (int(arrays["frame_cnt"]), str(arrays["video_name"])) == (24, "x")
        assert (arrays["feature"].shape, arrays["feature"].dtype) == ((10, 3, 1024), "float32")
        for crop, row in ((0, 0), (6, 1), (9, 2)):
            expected = [features(model, squares[crop][4 * row : 4 * row + 16])]
            close(arrays["feature"][crop, row : row + 1], expected)


def test_anet(
    model: InceptionI3d, flow_model: InceptionI3d, frames: Array, video: Path, tmp_path: Path
) -> None:
    """RGB and flow side by side, 2048 numbers for 16 frames."""
    networks = [model, flow_model]
    made = make(tmp_path, "anet", networks, video, flow="farneback", resize="none")
    clips = [scaled(centre(images)) for images in (frames, flow_of(frames))]
    expected = [
        np.concatenate([features(n, c[k : k + 16]) for n, c in zip(networks, clips, strict=True)])
        for k in (0,)
    ]
    close(made.array("x.npy", (1, 2048)), expected)
    assert made.rows == [(0, 15)]
    assert made.document["optical_flow"].startswith("Farnebäck of OpenCV ")


def test_ms_tcn(
    model: InceptionI3d, flow_model: InceptionI3d, frames: Array, tmp_path: Path
) -> None:
    """A row for every frame, of 21 frames around it; zeros beyond the ends; [2048, T]."""
    short = write_video(tmp_path / "x.mov", frames[:6])
    networks = [model, flow_model]
    made = make(tmp_path / "out", "ms-tcn", networks, short, flow="farneback")
    expected = []
    for network, images in zip(networks, (frames[:6], flow_of(frames[:6])), strict=True):
        padded = np.pad(scaled(centre(images)), [(10, 10), (0, 0), (0, 0), (0, 0)])
        expected.append([features(network, padded[k : k + 21]) for k in (0, 3, 5)])
    close(made.array("x.npy", (2048, 6))[:, [0, 3, 5]].T, np.concatenate(expected, axis=1))
    assert made.rows == [(0, 5)] * 6
    assert [row["padded"] for row in made.document["rows"]] == [15] * 6


def test_charades(model: InceptionI3d, frames: Array, video: Path, tmp_path: Path) -> None:
    """The steps of the whole video: [T, 1, 1, 1024]."""
    made = make(tmp_path, "charades", [model], video)
    clip = scaled(centre(frames))
    x = torch.from_numpy(np.ascontiguousarray(clip.transpose(3, 0, 1, 2)[None]))
    with torch.inference_mode():
        last = model.endpoints(x, ["Mixed_5c"])["Mixed_5c"].mean((3, 4))[0].T.numpy()
    expected = (last[:-1] + last[1:]) / 2  # AvgPool3d of 2x7x7 on a map of 1x1
    close(made.array("x.npy", (2, 1, 1, 1024))[:, 0, 0], expected)
    assert made.rows == [(0, 15), (8, 23)]


def test_xd_violence(model: InceptionI3d, frames: Array, video: Path, tmp_path: Path) -> None:
    """A file for each of five squares, the centre first."""
    made = make(tmp_path, "xd-violence", [model], video)
    squares = ten(frames)
    assert made.files() == ["x.json", *(f"x_{crop}.npy" for crop in range(5))]
    for crop, square in enumerate((2, 0, 1, 3, 4)):
        clip = scaled(squares[square])
        expected = [features(model, clip[k : k + 16]) for k in (0,)]
        close(made.array(f"x_{crop}.npy", (1, 1024)), expected)


def test_bsl(model: InceptionI3d, frames: Array, tmp_path: Path) -> None:
    """Values p / 255 - 0.5, squashed frames, the last one repeated, global pooling."""
    network = InceptionI3d(5, variant=Variant(pooling="global")).eval()
    network.load_state_dict(model.state_dict())
    for count, starts in ((12, [0]), (18, [0, 1, 2])):
        path = write_video(tmp_path / f"{count}.mov", frames[:count])
        made = make(tmp_path / f"out {count}", "bsl", [model], path)
        floats = np.stack([cv2.resize(frame.astype("f4"), (256, 256)) for frame in frames[:count]])
        clip = centre(floats) / 255 - 0.5
        clip = np.concatenate([clip, clip[-1:].repeat(max(16 - count, 0), axis=0)])
        expected = [features(network, clip[k : k + 16]) for k in starts]
        close(made.array("x.npy", (len(starts), 1024)), expected)
        assert made.rows == [(k, min(k + 15, count - 1)) for k in starts]


def test_wlasl(model: InceptionI3d, frames: Array, video: Path, tmp_path: Path) -> None:
    """The largest logits over time of the whole clip, frames as OpenCV decodes them: BGR."""
    made = make(tmp_path, "wlasl", [model], video)
    clip = scaled(centre(frames[..., ::-1]))
    expected = features(model, clip, "step_logits").max(0, keepdims=True)
    close(made.array("x.npy", (1, 5)), expected)
    assert made.rows == [(0, 23)]


@pytest.mark.parametrize(
    ("preset", "size", "large"),
    [
        ("video-features", (256, 341), (256, 341)),
        ("cmcs-thumos", (256, 340), (256, 340)),
        ("anet", (36, 48), (36, 48)),  # the checkpoint's
        ("ms-tcn", (256, 341), (256, 341)),
        ("charades", (226, 301), (480, 640)),
        ("ten-crop", (256, 340), (256, 340)),
        ("xd-violence", (256, 341), (256, 341)),
        ("bsl", (256, 256), (256, 256)),
        ("wlasl", (226, 301), (480, 640)),
    ],
)
def test_sizes(preset: str, size: Shape, large: Shape) -> None:
    """Frames of 64x48 and 640x480 pixels are resized as by the tool."""
    spec = noisy("rgb", 1).metadata.input if preset == "anet" else Input()
    rule = preset_settings(preset).resize_rule(spec)
    assert (rule.target(48, 64), rule.target(480, 640)) == (size, large)


def test_every_preset_is_tested() -> None:
    """Each preset says where its facts come from, and has a test of its name."""
    tests: dict[str, Callable[..., None]] = {
        name: value for name, value in globals().items() if name.startswith("test_")
    }
    for name in feature_preset_names():
        assert feature_preset(name).source.startswith("https://")
        own = name.replace("-", "_")
        assert f"test_{own}" in tests or name in ("cmcs-thumos", "ten-crop")
