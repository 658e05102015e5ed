"""The cache of decoded frames: bounded, shared, and gone at the end; and no file stays open."""

from pathlib import Path

import pytest
import torch

from i3dzoo.errors import VideoError
from i3dzoo.metadata import Input
from i3dzoo.video import FrameCache, Index, VideoDataset, loader

from .video_data import small_prepared

SPEC = Input(resize=32, crop=24, frames=8, fps=None)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Twelve generated clips of three classes."""
    return small_prepared(tmp_path_factory.mktemp("dataset")).index


class TestCache:
    def test_bounded(self, index: Index) -> None:
        """Only what fits is kept; the rest is decoded, and nothing differs."""
        size = 24 * 32 * 43 * 3
        cache = FrameCache(4 * size)
        data = VideoDataset(index, SPEC, cache=cache)
        plain = VideoDataset(index, SPEC)
        for _ in range(2):
            for found, truth in zip(loader(data, 4), loader(plain, 4), strict=True):
                assert torch.equal(found.clips, truth.clips)
        files = list(cache.folder.iterdir())
        assert 2 <= len(files) < 12
        assert sum(file.stat().st_size for file in files) <= cache.reserved <= 4 * size

    def test_later_epochs_decode_nothing(self, tmp_path: Path) -> None:
        """Once cached, the video itself is not read again."""
        index = small_prepared(tmp_path).index
        data = VideoDataset(index, SPEC, cache=FrameCache(1 << 24))
        first = [sample.views for sample in map(data.__getitem__, range(12))]
        for entry in index.entries:
            (index.root / entry.file).unlink()
        for number, views in enumerate(first):
            again = data[number].views
            assert views is not None
            assert again is not None
            assert torch.equal(again, views)

    def test_processes_share_one(self, tmp_path: Path) -> None:
        """A process that joins another's cache decodes nothing anew, and leaves it in place."""
        index = small_prepared(tmp_path).index
        made = FrameCache(1 << 24)
        data = VideoDataset(index, SPEC, cache=made)
        first = [data[number].views for number in range(12)]
        for entry in index.entries:
            (index.root / entry.file).unlink()
        joined = FrameCache.of(made.folder, 1 << 24)
        data = VideoDataset(index, SPEC, cache=joined)
        for number, views in enumerate(first):
            found = data[number].views
            assert views is not None
            assert found is not None
            assert torch.equal(found, views)
        joined.close()
        assert joined.reserved == made.reserved
        assert len(list(made.folder.iterdir())) == 12

    def test_broken_videos_leave_nothing(self, tmp_path: Path) -> None:
        """A video that breaks while it is cached is an error, and no half array stays."""
        index = small_prepared(tmp_path, per_class=1).index
        (index.root / index.entries[0].file).unlink()
        (index.root / index.entries[0].file).write_bytes(b"no video" * 100)
        cache = FrameCache(1 << 24)
        with pytest.raises(VideoError):
            VideoDataset(index, SPEC, cache=cache)[0]
        assert list(cache.folder.iterdir()) == []

    def test_goes_when_closed(self, tmp_path: Path) -> None:
        """The folder is removed, once and for all."""
        cache = FrameCache(100, tmp_path)
        assert cache.folder.parent == tmp_path
        cache.close()
        cache.close()
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts handles as Linux does")
def test_no_handle_leaks(index: Index) -> None:
    """Going through the data, cached and not, leaves as many open files as there were."""
    for cache in (None, FrameCache(1 << 24)):
        data = VideoDataset(index, SPEC, cache=cache)
        before = len(list(Path("/proc/self/fd").iterdir()))
        for number in list(range(12)) * 3:
            data[number]
        assert len(list(Path("/proc/self/fd").iterdir())) == before
