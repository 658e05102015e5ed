"""Sets of videos and of features: what a path or an object stands for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.video_files import numbered
from safetensors.numpy import save_file

from i3dzoo.errors import (
    DatasetError,
    FormatError,
    InputTypeError,
    MissingFileError,
    OptionError,
    ShapeError,
)
from i3dzoo.fvd.sources import Known, open_source
from i3dzoo.fvd.video_sets import ArrayOfVideos, VideoSet

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 10, 6, 8, 3), np.uint8)


def _frames(source: object, number: int = 0, **options: object) -> np.ndarray:
    """Return frames 1 and 4 of a video, [2, 3, H, W]."""
    videos = open_source(source, "real", **options)
    assert not isinstance(videos, Known)
    return torch.stack(list(videos.open(number).read([1, 4]))).numpy()


EXPECTED = PIXELS[1, [1, 4]].transpose(0, 3, 1, 2)


def test_arrays(tmp_path: Path) -> None:
    """Each layout, container and range gives the same pixels."""
    turned = PIXELS.transpose(0, 4, 1, 2, 3)
    np.save(tmp_path / "a.npy", PIXELS)
    np.savez_compressed(tmp_path / "a.npz", turned)
    for source in (PIXELS, turned, torch.from_numpy(PIXELS), PIXELS.transpose(0, 1, 4, 2, 3)):
        np.testing.assert_array_equal(_frames(source, 1), EXPECTED)
    for name in ("a.npy", "a.npz"):
        np.testing.assert_array_equal(_frames(tmp_path / name, 1), EXPECTED)
    floats = PIXELS.astype(">f8") / 127.5 - 1
    for values, options in (
        (floats, {}),
        (PIXELS.astype("f4"), {}),
        (PIXELS / 255, {"value_range": "0..1"}),
        (torch.from_numpy(floats.astype("f4")), {"value_range": "-1..1"}),
    ):
        np.testing.assert_allclose(_frames(values, 1, **options), EXPECTED, atol=2e-5)


def test_npz_goes_back(tmp_path: Path) -> None:
    """A video before the last one is read from the start of the file."""
    np.savez_compressed(tmp_path / "a.npz", PIXELS)
    videos = open_source(tmp_path / "a.npz")
    assert isinstance(videos, ArrayOfVideos)
    for number in (1, 0, 1):
        (frame,) = videos.open(number).read([2])
        np.testing.assert_array_equal(frame.numpy(), PIXELS[number, 2].transpose(2, 0, 1))
    assert videos.digest() == open_source(tmp_path / "a.npz").digest()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (PIXELS / 255, OptionError, r"floats from 0 to 1, .* --range 0..1 or --range -1..1"),
        (PIXELS * 2.0, OptionError, "floats from 0 to 510; expected 0..1, -1..1 or 0..255"),
        (PIXELS.astype("i8"), InputTypeError, r"real: holds int64; expected uint8"),
        (np.full((1, 9, 4, 4, 3), np.nan), ShapeError, "video 0 has values that are not finite"),
        (np.zeros((2, 3, 9, 4, 3), "u1"), ShapeError, "can be NTHWC or NCTHW; .* --layout"),
        (np.zeros((2, 9, 4, 4, 1), "u1"), ShapeError, "no axis has the 3 channels"),
        (np.zeros((9, 4, 4, 3), "u1"), ShapeError, r"has shape \[9, 4, 4, 3\]; expected \[N, T"),
        ("missing.npy", MissingFileError, "missing.npy"),
        (3, InputTypeError, "real: is of type int; expected a path, an array or a tensor"),
    ],
)
def test_refusals(array: object, error: type[Exception], message: str) -> None:
    """Nothing is guessed where two readings are possible."""
    with pytest.raises(error, match=message):
        open_source(array, "real")


def test_stated_reading() -> None:
    """What is stated must be possible."""
    two = np.zeros((2, 3, 9, 4, 3), "u1")
    assert open_source(two, "real", layout="NCTHW").layout == "NCTHW"  # type: ignore[union-attr]
    with pytest.raises(ShapeError, match="which is not NTCHW"):
        open_source(two, "real", layout="NTCHW")
    with pytest.raises(OptionError, match=r"from -1 to 1, which is outside of --range 0..1"):
        open_source(PIXELS / 127.5 - 1, "real", value_range="0..1")
    with pytest.raises(OptionError, match=r"holds uint8, which is 0..255"):
        open_source(PIXELS, "real", value_range="0..1")


def test_folders(folder: Path, tmp_path: Path) -> None:
    """Videos of a folder and of its folders in order; folders of images; other files are named."""
    videos: VideoSet | Known = open_source(folder)
    assert len(videos) == 3  # type: ignore[arg-type]
    assert videos.notes == (f"{folder}: skipped what is not a video: readme.txt",)
    opened = videos.open(2)  # type: ignore[union-attr]
    assert opened.name == str(folder / "walk" / "c.mov")
    assert (opened.frames, opened.fps) == (12, 25)
    np.save(tmp_path / "one.npy", numbered(10))
    (tmp_path / "images").mkdir()
    with pytest.raises(DatasetError, match="holds no videos and no folders of images"):
        open_source(tmp_path / "images")
    for number in range(2):
        (tmp_path / "images" / f"{number}.png").write_bytes(b"")
    assert [file.name for file in open_source(tmp_path).files] == ["one.npy", "images"]  # type: ignore[union-attr]
    with pytest.raises(DatasetError, match=r"images of one video; .* give the folder above"):
        open_source(tmp_path / "images")


def test_features(tmp_path: Path) -> None:
    """Features in each container are the same; damage is named with the file."""
    rows = np.random.default_rng(0).normal(size=(5, 400)).astype("f4")
    np.save(tmp_path / "a.npy", rows)
    np.savez(tmp_path / "a.npz", rows)
    save_file({"features": rows}, tmp_path / "a.safetensors")
    for source in (rows, *(tmp_path / f"a.{kind}" for kind in ("npy", "npz", "safetensors"))):
        known = open_source(source, "real")
        assert isinstance(known, Known)
        np.testing.assert_array_equal(known.statistics[0].sample, rows.astype("f8"))
        assert "5 features of 400 numbers" in known.notes[0]
    np.save(tmp_path / "nan.npy", np.full((2, 4), np.nan))
    with pytest.raises(FormatError, match=r"nan.npy: the features are not finite"):
        open_source(tmp_path / "nan.npy")
    with (tmp_path / "a.npy").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(FormatError, match=r"a.npy: is truncated: it has 0 of 5 rows"):
        open_source(tmp_path / "a.npy")
    save_file({"x": rows}, tmp_path / "b.safetensors")
    with pytest.raises(FormatError, match="neither statistics of FVD nor the tensor features"):
        open_source(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([None, {}], dtype=object), "pickled Python objects"),
        (np.zeros((3, 4), "i4"), r"holds int32 \[3, 4\]; expected uint8 or floats"),
        (np.zeros((3, 4, 5), "f4"), r"holds float32 \[3, 4, 5\]; expected videos"),
        (np.asfortranarray(np.zeros((3, 4), "f4")), "Fortran order"),
    ],
)
def test_other_arrays(tmp_path: Path, array: np.ndarray, message: str) -> None:
    """Arrays of other types and shapes are refused before their values are read."""
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(FormatError, match=f"x.npy: .*{message}"):
        open_source(tmp_path / "x.npy")
    np.savez(tmp_path / "x.npz", a=array, b=array)
    with pytest.raises(FormatError, match=r"x.npz: .*holds 2 arrays \(a, b\); expected one"):
        open_source(tmp_path / "x.npz")


def test_not_a_set(tmp_path: Path) -> None:
    """A picture, such as a grid of images, is not a set of videos."""
    (tmp_path / "grid.png").write_bytes(b"\x89PNG")
    with pytest.raises(FormatError, match=r"grid.png: is not a set of videos; expected a folder"):
        open_source(tmp_path / "grid.png")
