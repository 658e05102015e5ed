"""Files of features, read back by the libraries of their formats."""

import io
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from pyarrow import parquet
from safetensors.numpy import load

from i3dzoo.arrays import Array
from i3dzoo.errors import FormatError
from i3dzoo.features.extraction import Features
from i3dzoo.features.hdf5_file import pack
from i3dzoo.features.outputs import output_files
from i3dzoo.features.rows import Rows
from i3dzoo.features.settings import make_settings
from i3dzoo.video import VideoInfo

ROWS = Rows(
    np.array([[0, 15], [4, 19], [8, 23]]),
    np.array([[0.0, 0.64], [0.16, 0.8], [0.32, np.nan]]),
    np.array([0, 0, 2]),
)


def made(**streams: Array) -> Features:
    """Features of three rows."""
    info = VideoInfo(Path("a/x.mp4"), "file", "rgb", 24, 48, 64, 25.0, np.arange(24) / 25)
    return Features(info.path, streams, ROWS, info, 24, 25.0, ("a note",))  # type: ignore[arg-type] # stream names


def numbers(crops: int = 1, channels: int = 4, start: int = 0) -> Array:
    """Numbers of each row, crop and channel."""
    count = 3 * crops * channels
    return np.arange(start, start + count, dtype="f4").reshape(3, crops, channels)


def written(features: Features, **settings: Any) -> dict[str, bytes]:
    """The bytes of each file."""
    contents = {}
    for file in output_files("a/x", features, make_settings(settings), {"video": {"path": "x"}}):
        buffer = io.BytesIO()
        file.write(buffer)
        contents[file.name] = buffer.getvalue()
    assert [*contents][-1] == "a/x.json"
    return contents


@pytest.mark.parametrize(
    ("order", "crops", "axes"),
    [("TC", 1, (0, 2)), ("CT", 1, (2, 0)), ("NTC", 10, (1, 0, 2)), ("TNC", 3, (0, 1, 2))],
)
def test_order_and_type(order: str, crops: int, axes: tuple[int, ...]) -> None:
    """Axes are in the order of the letters, numbers of the type."""
    array = numbers(crops)
    files = written(made(rgb=array), order=order, crops=crops, dtype="float16")
    actual = np.load(io.BytesIO(files["a/x.npy"]))
    expected = array.transpose(axes) if crops > 1 else array[:, 0].transpose(np.argsort(axes))
    assert actual.dtype == np.float16
    np.testing.assert_array_equal(actual, expected)
    ones = written(made(rgb=numbers()), order="T11C")
    assert np.load(io.BytesIO(ones["a/x.npy"])).shape == (3, 1, 1, 4)


def test_streams_and_crops_in_files() -> None:
    """RGB comes before flow in one file; {stream} and {crop} give each its own."""
    rgb, flow = numbers(5), numbers(5, start=100)
    both = made(flow=flow, rgb=rgb)
    joined = np.load(io.BytesIO(written(both, streams="both", crops=5)["a/x.npy"]))
    np.testing.assert_array_equal(joined, np.concatenate([rgb, flow], axis=2))
    files = written(both, streams="both", crops=5, naming="{name}-{stream}_{crop}")
    assert sorted(files)[0] == "a/x-flow_0.npy"
    assert len(files) == 11
    np.testing.assert_array_equal(np.load(io.BytesIO(files["a/x-flow_3.npy"])), flow[:, 3])


def test_json() -> None:
    """The JSON has the settings, the files, and the frames and seconds of each row."""
    files = written(made(rgb=numbers()), window=16, files={"{name}_fps": "fps"})
    document = json.loads(files["a/x.json"])
    assert document["files"] == {"a/x.npy": [3, 4], "a/x_fps.npy": None}
    assert (document["settings"]["window"], document["video"]) == (16, {"path": "x"})
    assert document["notes"] == ["a note"]
    assert document["rows"][1] == {
        "first_frame": 4, "last_frame": 19, "start": 0.16, "end": 0.8, "padded": 0,
    }  # fmt: skip
    assert document["rows"][2]["end"] is None  # JSON has no NaN
    assert np.load(io.BytesIO(files["a/x_fps.npy"])) == 25


def test_formats() -> None:
    """Other formats hold the same numbers, and the seconds or the frames of each row."""
    features, expected = made(rgb=numbers()), numbers()[:, 0]
    arrays = np.load(io.BytesIO(written(features, format="npz")["a/x.npz"]))
    np.testing.assert_array_equal(arrays["features"], expected)
    np.testing.assert_array_equal(arrays["spans"], ROWS.spans)
    tensors = load(written(features, format="safetensors")["a/x.safetensors"])
    np.testing.assert_array_equal(tensors["features"], expected)
    keys = {"feature": "features", "video_name": "name"}
    state = torch.load(io.BytesIO(written(features, format="pt", keys=keys)["a/x.pt"]))
    np.testing.assert_array_equal(state["feature"].numpy(), expected)
    assert state["video_name"] == "x"
    content = written(made(rgb=numbers(3)), format="parquet", crops=3)["a/x.parquet"]
    table = parquet.read_table(io.BytesIO(content)).to_pydict()
    np.testing.assert_array_equal(np.array(table["features"]).reshape(3, 3, 4), numbers(3))
    assert table["first_frame"] == [0, 0, 0, 4, 4, 4, 8, 8, 8]
    assert table["crop"] == [0, 1, 2] * 3


def test_one_hdf5_file(tmp_path: Path) -> None:
    """Videos are added to one file; a video that is written again is replaced."""
    for start, extra in ((0, {}), (50, {"keys": {"f": "features", "n": "name"}})):
        for name, content in written(
            made(rgb=numbers(start=start)), format="hdf5", **extra
        ).items():
            for copy in (name, name.replace("/x.", "/y.")) if start else (name,):
                path = tmp_path / copy
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        assert pack(tmp_path) == tmp_path / "features.h5"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "features.h5"]
    with h5py.File(tmp_path / "features.h5") as file:
        assert sorted(file["a"]) == ["x", "y"]
        np.testing.assert_array_equal(file["a/x/f"][()], numbers(start=50)[:, 0])
        assert file["a/y/n"].asstr()[()] == "x"
        assert "features" not in file["a/x"]


def test_number_that_is_too_large() -> None:
    """A feature that the number type cannot hold is not written as infinity."""
    with pytest.raises(FormatError, match=r"a feature of 1e\+06 is too large for float16"):
        written(made(rgb=numbers() + 1e6), dtype="float16")
