"""Reading frames deep in a video starts at the keyframe before them."""

from pathlib import Path

import av
import numpy as np
import pytest

from i3dzoo.video import _packets, probe, read


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds of H.264 with B-frames and a keyframe every second; red counts the frames."""
    path = tmp_path_factory.mktemp("long") / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        stream.options = {"g": "25", "keyint_min": "25", "bf": "2", "crf": "1"}
        for index in range(300):
            image = np.full((32, 32, 3), 40 + index % 100 * 2, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_skips_to_the_keyframe(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames 10 and 280..283 take fewer than 40 decoded frames, not 284."""
    info = probe(long)
    places = [index for index, _ in info.keyframes]
    assert places[0] == 0
    assert len(places) >= 12
    whole = read(long).frames
    decoded = 0
    real = _packets.decode_packet

    def counted(*arguments: object) -> list[av.VideoFrame]:
        nonlocal decoded
        frames = real(*arguments)  # type: ignore[arg-type] # handed on
        decoded += len(frames)
        return frames

    monkeypatch.setattr(_packets, "decode_packet", counted)
    wanted = [10, 280, 281, 282, 283]
    np.testing.assert_array_equal(read(info, wanted, threads=1).frames, whole[wanted])
    assert decoded < 40


def test_every_start(long: Path) -> None:
    """From every start, the frames equal those of decoding the whole video."""
    info, whole = probe(long), read(long).frames
    for start in range(0, 290, 7):
        wanted = np.arange(start, start + 10)
        np.testing.assert_array_equal(read(info, wanted).frames, whole[wanted])


def test_a_wrong_index_is_noticed(long: Path) -> None:
    """Wrong keyframes in a description lead to the start, not to wrong frames."""
    info = probe(long)
    object.__setattr__(info, "keyframes", tuple((index, pts + 7) for index, pts in info.keyframes))
    np.testing.assert_array_equal(read(info, [260]).frames, read(long).frames[[260]])


def test_damaged_files_are_decoded_from_their_start(long: Path, tmp_path: Path) -> None:
    """A damaged file has no keyframes, since frames that are left out would shift the indices."""
    data = bytearray(long.read_bytes())
    begin = data.index(b"mdat") + len(data) // 3
    data[begin : begin + 2000] = bytes(2000)
    (tmp_path / "a.mp4").write_bytes(data)
    info = probe(tmp_path / "a.mp4")
    assert info.warnings
    assert info.keyframes == ()
