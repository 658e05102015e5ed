"""The cache of decoded frames: its limit, sharing, removal, and open files."""

from pathlib import Path

import pytest
import torch
from helpers.video_data import small_prepared

from i3dzoo.checkpoints.metadata import Input
from i3dzoo.errors import VideoError
from i3dzoo.video import FrameCache, Index, VideoDataset

SPEC = Input(resize=32, crop=24, frames=8, fps=None)


class TestCache:
    def test_bounded(self, index: Index) -> None:
        """Videos that do not fit are decoded every time, and samples are the same."""
        size = 24 * 32 * 43 * 3
        cache = FrameCache(4 * size)
        data = VideoDataset(index, SPEC, cache=cache)
        plain = VideoDataset(index, SPEC)
        for _ in range(2):
            for number in range(12):
                assert torch.equal(data[number].views["rgb"], plain[number].views["rgb"])
        files = list(cache.folder.iterdir())
        assert 2 <= len(files) < 12
        assert sum(file.stat().st_size for file in files) <= cache.reserved <= 4 * size

    def test_videos_are_decoded_once(self, tmp_path: Path) -> None:
        """Later epochs and a process that joins a cache read no video, and joining removes none."""
        index = small_prepared(tmp_path).index
        cache = FrameCache(1 << 24)
        data = VideoDataset(index, SPEC, cache=cache)
        first = [data[number].views["rgb"] for number in range(12)]
        for entry in index.entries:
            (index.root / entry.file).unlink()
        joined = FrameCache.of(cache.folder, 1 << 24)
        for reader in (data, VideoDataset(index, SPEC, cache=joined)):
            for number, views in enumerate(first):
                assert torch.equal(reader[number].views["rgb"], views)
        joined.close()
        assert joined.reserved == cache.reserved
        assert len(list(cache.folder.glob("*.npy"))) == 12

    def test_broken_videos_leave_nothing(self, tmp_path: Path) -> None:
        """A video that breaks while it is decoded leaves no partial array."""
        index = small_prepared(tmp_path, per_class=1).index
        (index.root / index.entries[0].file).unlink()
        (index.root / index.entries[0].file).write_bytes(b"no video" * 100)
        cache = FrameCache(1 << 24)
        with pytest.raises(VideoError):
            VideoDataset(index, SPEC, cache=cache)[0]
        assert [path.name for path in cache.folder.iterdir()] == [".lock"]

    def test_goes_when_closed(self, tmp_path: Path) -> None:
        """The folder is removed when the cache is closed."""
        cache = FrameCache(100, tmp_path)
        assert cache.folder.parent == tmp_path
        cache.close()
        cache.close()
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts handles as Linux does")
def test_no_handle_leaks(index: Index) -> None:
    """Reading the data, with and without a cache, leaves no file open."""
    for cache in (None, FrameCache(1 << 24)):
        data = VideoDataset(index, SPEC, cache=cache)
        before = len(list(Path("/proc/self/fd").iterdir()))
        for number in list(range(12)) * 3:
            data[number]
        assert len(list(Path("/proc/self/fd").iterdir())) == before
