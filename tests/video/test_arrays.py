"""NumPy files that hold the input of a network, as DeepMind's samples do, and .npz files."""

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.video_files import numbered

from i3dzoo.checkpoints.metadata import Input, default_input
from i3dzoo.errors import VideoError
from i3dzoo.video import load_clips, preprocess, probe, read, resample, whole

SMALL = Input(resize=40, crop=32, frames=16)


def sample(channels: int = 3, size: int = 32) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return 20 frames in DeepMind's format: float32 [1, T, H, W, C] from -1 to 1."""
    shape = (1, 20, size, size, channels)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype("f4")


def clip_of(path: Path, spec: Input = SMALL) -> torch.Tensor:
    """Return the whole video as input of a network."""
    info = probe(path, spec.decoded)
    ((_, clip),) = load_clips(info, [whole(resample(info, spec.fps), 9, spec.crop)], spec)
    return clip


class TestFloats:
    @pytest.mark.parametrize("name", ["a.npy", "a.npz", "packed.npz"])
    def test_taken_as_it_is(self, tmp_path: Path, name: str) -> None:
        """Every value of DeepMind's format reaches the network to the bit, without resizing."""
        array = sample()
        save = {"a.npy": np.save, "a.npz": np.savez, "packed.npz": np.savez_compressed}[name]
        save(tmp_path / name, array)
        assert torch.equal(clip_of(tmp_path / name), torch.from_numpy(array[0]).permute(3, 0, 1, 2))
        info = probe(tmp_path / name)
        assert (info.frames, info.height, info.width, info.fps) == (20, 32, 32, None)
        assert "without resizing" in info.notes[0]

    def test_flow(self, tmp_path: Path) -> None:
        """Flow is [1, T, H, W, 2]; one file can hold both streams by name."""
        rgb, flow = sample(), sample(2)
        np.savez(tmp_path / "both.npz", rgb=rgb, flow=flow)
        spec = default_input("flow").replace(crop=32, resize=40)
        expected = torch.from_numpy(flow[0]).permute(3, 0, 1, 2)
        assert torch.equal(clip_of(tmp_path / "both.npz", spec), expected)
        expected = torch.from_numpy(rgb[0]).permute(3, 0, 1, 2)
        assert torch.equal(clip_of(tmp_path / "both.npz"), expected)

    @pytest.mark.parametrize("changes", [{"channels": "bgr"}, {"mean": (0.4, 0.5, 0.6)}])
    @pytest.mark.parametrize("size", [32, 50])
    def test_other_inputs(self, tmp_path: Path, changes: dict[str, object], size: int) -> None:
        """Where sizes or values of a network differ, the clip is that of the same frames of 8 bits.

        A frame of another size than the crop is resized as any other.
        """
        frames = np.random.default_rng(0).integers(0, 256, (9, size, size, 3), np.uint8)
        np.save(tmp_path / "a.npy", (frames / 127.5 - 1).astype("f4"))
        spec = SMALL.replace(std=(0.2, 0.3, 0.4), **changes)
        same = spec.replace(resize=None) if size == 32 else spec
        torch.testing.assert_close(
            clip_of(tmp_path / "a.npy", spec), preprocess(frames, same), atol=3e-6, rtol=0
        )

    def test_read_rounds_to_pixels(self, tmp_path: Path) -> None:
        """`read` returns the frames of 8 bits."""
        np.save(tmp_path / "a.npy", numbered(5) / np.float64(127.5) - 1)
        np.testing.assert_array_equal(read(tmp_path / "a.npy").frames, numbered(5))

    @pytest.mark.parametrize(
        ("low", "high", "remedy"),
        [
            (0, 1, "multiply values of 0 to 1 by 2 and subtract 1"),
            (0, 255, r"save frames of 0 to 255 as uint8: array\.round"),
            (-20, 20, "scale them to this range"),
            (-1, 1.01, "scale them to this range"),
        ],
    )
    def test_other_ranges(self, tmp_path: Path, low: float, high: float, remedy: str) -> None:
        """Floats of another range are refused with theirs, the expected one, and what to do."""
        np.save(tmp_path / "a.npy", np.linspace(low, high, 192, dtype="f4").reshape(1, 8, 8, 3))
        with pytest.raises(VideoError, match=rf"floats from {low} to {high}; .*-1 to 1.*{remedy}"):
            probe(tmp_path / "a.npy")

    def test_not_finite(self, tmp_path: Path) -> None:
        """The message names the frame."""
        array = sample()
        array[0, 7, 3, 3, 0] = np.nan
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(VideoError, match=r"a\.npy: frame 7 has values that are not finite"):
            probe(tmp_path / "a.npy")


class TestShapes:
    def test_a_batch_of_one(self, tmp_path: Path) -> None:
        """uint8 [1, T, H, W, 3] is one clip; in Fortran's order too."""
        np.save(tmp_path / "a.npy", numbered(5)[None])
        np.testing.assert_array_equal(read(tmp_path / "a.npy").frames, numbered(5))
        np.save(tmp_path / "f.npy", np.asfortranarray(numbered(5)[None]))
        np.testing.assert_array_equal(read(tmp_path / "f.npy", [1, 4]).frames, numbered(5)[[1, 4]])

    @pytest.mark.parametrize(
        ("shape", "kind", "remedy"),
        [
            ((2, 5, 8, 8, 3), "u1", "save each clip as a file of its own"),
            ((1, 3, 5, 8, 8), "f4", r"array\.transpose\(0, 2, 3, 4, 1\)"),
            ((5, 3, 8, 8), "u1", r"array\.transpose\(0, 2, 3, 1\)"),
            ((5, 8, 8, 3), "i8", r"array\.astype\('uint8'\)"),
            ((5, 8, 8), "u1", r"with C = 3 for RGB or 2 for flow"),
        ],
    )
    def test_others(self, tmp_path: Path, shape: tuple[int, ...], kind: str, remedy: str) -> None:
        """Other shapes and types are refused with what was found and what to do."""
        np.save(tmp_path / "a.npy", np.zeros(shape, kind))
        with pytest.raises(
            VideoError, match=rf"a\.npy: holds .*; expected uint8 .*{remedy}"
        ) as caught:
            probe(tmp_path / "a.npy")
        assert str(list(shape)) in str(caught.value)


class TestZip:
    def test_several_arrays(self, tmp_path: Path) -> None:
        """Arrays of other names are listed."""
        np.savez(tmp_path / "a.npz", before=numbered(2), after=numbered(2))
        with pytest.raises(VideoError, match=r"holds 2 arrays \(before, after\); .* name rgb"):
            probe(tmp_path / "a.npz")
        np.savez(tmp_path / "b.npz")
        with pytest.raises(VideoError, match=r"holds 0 arrays \(none\)"):
            probe(tmp_path / "b.npz")

    def test_objects_are_not_unpickled(self, tmp_path: Path) -> None:
        """An array of Python objects is refused."""
        np.savez(tmp_path / "a.npz", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        with pytest.raises(VideoError, match="pickled Python objects, which can run code"):
            probe(tmp_path / "a.npz")

    def test_many_members(self, tmp_path: Path) -> None:
        """The table of members is measured before it is read."""
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            for number in range(1001):
                archive.writestr(f"{number}.npy", b"")
        with pytest.raises(VideoError, match=r"lists 1,001 members in .* at most 1,000"):
            probe(tmp_path / "a.npz")

    def test_a_table_that_is_larger_than_it_says(self, tmp_path: Path) -> None:
        """A number of members that does not fit the length of the table does not help."""
        entry = struct.pack("<4s42x", b"PK\x01\x02") * 40_000
        end = struct.pack("<4s4xHHIIH", b"PK\x05\x06", 1, 1, len(entry), 0, 0)
        (tmp_path / "a.npz").write_bytes(entry + end)
        with pytest.raises(VideoError, match="lists 1 members in 1,840,000 bytes"):
            probe(tmp_path / "a.npz")

    def test_a_header_that_claims_more(self, tmp_path: Path) -> None:
        """A header of more frames than the member has is refused."""
        np.save(tmp_path / "a.npy", np.zeros((2, 8, 8, 3), np.uint8))
        data = (tmp_path / "a.npy").read_bytes()
        old, new = b"(2, 8, 8, 3), }" + b" " * 6, b"(9000000, 8, 8, 3), }"
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("a.npy", data.replace(old, new))
        with pytest.raises(VideoError, match=r"\[9000000, 8, 8, 3\], but 384 bytes follow"):
            probe(tmp_path / "a.npz")

    @pytest.mark.parametrize("kept", [100, -60])
    def test_damage(self, tmp_path: Path, kept: int) -> None:
        """A truncated file, and a member whose bytes are damaged, are refused."""
        np.savez_compressed(tmp_path / "a.npz", numbered(30))
        data = bytearray((tmp_path / "a.npz").read_bytes())
        (tmp_path / "a.npz").write_bytes(data[:kept])
        with pytest.raises(VideoError, match=r"a\.npz: is not a readable \.npz file"):
            probe(tmp_path / "a.npz")
        data[200:230] = bytes(30)
        (tmp_path / "a.npz").write_bytes(data)
        with pytest.raises(VideoError, match=r"a\.npz: .*(damaged|not a readable)"):
            read(tmp_path / "a.npz")
