"""Small files that ask for much: they are refused at once, or read within bounds of memory."""

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.video_files import numbered, write_video

from i3dzoo.checkpoints.metadata import Input, Metadata, Source
from i3dzoo.errors import MetadataError, ShapeError, VideoError
from i3dzoo.video import WHOLE, Entry, Index, VideoDataset, probe, resample

MEGABYTES = 300  # beyond what the clip takes
SECONDS = 5  # of the processor

# Prints a document a file: the error, or the shape of the clip; megabytes and seconds.
CHILD = """
import json, sys, time
from pathlib import Path
from i3dzoo.checkpoints.metadata import Input
from i3dzoo.video import centre_clip

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1000

for path in sys.argv[1:]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before, begin, error = memory("VmRSS"), time.process_time(), None
    try:
        centre_clip(Path(path), Input())
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    used = memory("VmHWM") - before, time.process_time() - begin
    print(json.dumps([error, *used]), flush=True)
"""


def png(width: int, height: int) -> bytes:
    """Return a grey PNG of zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes(width)) * height, 9)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def gif(width: int, height: int, frames: int) -> bytes:
    """Return a GIF whose frames are one pixel each of a canvas."""
    image = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    frame = b"\x21\xf9\x04\x04\x04\x00\x00\x00" + image
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return b"GIF89a" + screen + frame * frames + b";"


def slow_avi(path: Path) -> Path:
    """Write three frames, each of which is said to last for weeks."""
    write_video(path, numbered(3), codec="mpeg4", pixels="yuv420p")
    data = bytearray(path.read_bytes())
    begin = data.index(b"strh") + 28
    data[begin : begin + 4] = struct.pack("<I", 50_000_000)
    path.write_bytes(data)
    return path


Y4M = (
    b"YUV4MPEG2 W64 H48 F1:2000000 Ip A1:1 C420jpeg\n" + (b"FRAME\n" + bytes(64 * 48 * 3 // 2)) * 2
)


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux does")
def test_memory_and_time(tmp_path: Path) -> None:
    """Each file takes less than 300 MB and 5 s, and the message of a refusal says what is large."""
    image = tmp_path / "images" / "0.png"
    image.parent.mkdir()
    image.write_bytes(png(30_000, 1))
    np.save(tmp_path / "thin.npy", np.zeros((1, 1, 300_000, 3), np.uint8))
    np.save(tmp_path / "wide.npy", np.lib.stride_tricks.as_strided(
        np.zeros(1, np.uint8), (1, 6000, 6000, 3), (0, 0, 0, 0)))  # fmt: skip
    np.save(tmp_path / "none.npy", np.zeros((0, 8, 8, 3), np.uint8))
    np.savez_compressed(tmp_path / "none.npz", np.zeros((4, 0, 8, 3), np.uint8))
    (tmp_path / "canvas.gif").write_bytes(gif(8192, 8192, 300))
    (tmp_path / "frames.gif").write_bytes(gif(5792, 5792, 300))
    (tmp_path / "slow.y4m").write_bytes(Y4M)
    expected = {
        image.parent: "30000x1 pixels become 7,680,000x256",
        tmp_path / "thin.npy": "300000x1 pixels become 76,800,000x256",
        tmp_path / "wide.npy": "has frames of 6000x6000 pixels; expected at most 33,554,432",
        tmp_path / "none.npy": "holds no frames: its shape is [0, 8, 8, 3]",
        tmp_path / "none.npz": "holds no frames: its shape is [4, 0, 8, 3]",
        tmp_path / "canvas.gif": "has frames of 8192x8192 pixels; expected at most 33,554,432",
        tmp_path / "frames.gif": "has more than 64 frames of 5792x5792 pixels",
        tmp_path / "slow.y4m": None,
        slow_avi(tmp_path / "slow.avi"): None,
    }
    result = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, expected)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    lines = result.stdout.splitlines()
    for (path, message), line in zip(expected.items(), lines, strict=True):
        error, megabytes, seconds = json.loads(line)
        assert (error is None) == (message is None), error
        assert message is None or (f"{path}: " in error and message in error), error
        assert megabytes < MEGABYTES, path
        assert seconds < SECONDS, path


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"frames": 2_592_000}, VideoError, "2,592,000 frames; .* at most 2,674: use several"),
        ({"fps": 0.05, "frames": 10**6}, VideoError, "500,000,000 samples .* at most 2,592,000"),
        ({"width": 30_000, "height": 1}, ShapeError, "30000x1 pixels become 7,680,000x256"),
    ],
)
def test_an_index_that_exaggerates(
    tmp_path: Path, fields: dict[str, float], error: type[Exception], message: str
) -> None:
    """What an index says of a small file is bounded when a sample is read, and names the file."""
    entry = Entry(file="a.mp4", label="x", frames=3, height=48, width=64, fps=25.0).replace(
        **fields
    )
    dataset = VideoDataset(
        Index(tmp_path, "x", "videos", ("x",), (entry,)), Input(), sampling=WHOLE
    )
    with pytest.raises(error, match=rf"a\.mp4: .*{message}"):
        dataset[0]


def test_a_frame_rate_of_weeks_is_not_believed(tmp_path: Path) -> None:
    """The frames are taken as they are, and a remark says why."""
    info = probe(slow_avi(tmp_path / "slow.avi"))
    assert (info.frames, info.fps, info.times) == (3, None, None)
    assert "frame rate of 5e-07 fps is not credible" in info.remarks[0]
    assert len(resample(info, 25)) == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop": 20_000}, "crop is 20000; expected .* at most 2048"),
        ({"frames": 200_000}, "frames is 200000; expected .* at most 4096"),
        ({"frames": 2**31 - 1}, "frames is 2147483647; expected"),
        ({"resize": 2**31 - 1}, "resize is 2147483647; expected"),
        ({"fps": 1e9}, "fps is 1000000000.0; expected .* at most 1000"),
        ({"frames": 4096, "crop": 2048}, "4096 frames of 2048x2048 pixels exceed"),
    ],
)
def test_descriptions(fields: dict[str, float], message: str) -> None:
    """A description that asks for a clip beyond memory is refused when it is read."""
    with pytest.raises(MetadataError, match=message):
        Input(**fields)  # type: ignore[arg-type] # parametrized
    metadata = Metadata("rgb", 1, None, Input(), Source("canonical", "0" * 64))
    document = json.loads(metadata.to_json())
    document["input"] |= fields
    with pytest.raises(MetadataError, match=f"x.safetensors: input: {message}"):
        Metadata.from_json(json.dumps(document), "x.safetensors")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_among_images(tmp_path: Path) -> None:
    """A folder with a pipe that is named like an image is refused instead of waited for."""
    os.mkfifo(tmp_path / "0.png")
    with pytest.raises(VideoError, match=r"0\.png: expected a regular file"):
        probe(tmp_path)
