"""Datasets in archives: how they are found and extracted, and what archives may not do."""

import os
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from i3dzoo.errors import DatasetError, DependencyError
from i3dzoo.progress import Quiet
from i3dzoo.video import read
from i3dzoo.video.archives import extract, find_clips
from i3dzoo.video.generate import CLIPS_FOLDER, LISTS_FOLDER, generate
from i3dzoo.video.prepare import prepare

from .video_data import SHAPE, small_lists, write_rar, write_zip

EXTRACTOR = any(shutil.which(name) for name in ("bsdtar", "unrar", "7zz"))  # 7z may lack RAR
STAND_IN = Path(__file__).with_name("rar_extractor.py")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated clips of three classes, with their lists."""
    folder = tmp_path_factory.mktemp("source")
    generate(folder, small_lists(), SHAPE)
    return folder


def stand_in(folder: Path, tool: str) -> str:
    """Put a program that extracts under the name of a tool into a folder, and return it."""
    folder.mkdir()
    path = folder / tool
    path.write_text(f"#!{sys.executable}\n{STAND_IN.read_text()}")
    path.chmod(0o755)
    return str(folder)


@pytest.fixture
def extractor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that extracts: what is installed, or else one that stands in for it."""
    if not EXTRACTOR:
        monkeypatch.setenv("PATH", stand_in(tmp_path / "bin", "bsdtar"))


@pytest.mark.skipif(os.name != "posix", reason="the stand-in is a script")
class TestArchives:
    @pytest.mark.parametrize("shape", ["one archive", "class archives"])
    @pytest.mark.parametrize("kind", ["zip", "rar"])
    @pytest.mark.usefixtures("extractor")
    def test_archive_of_class_archives(
        self, tmp_path: Path, source: Path, kind: str, shape: str
    ) -> None:
        """The official shape, one .rar with a .rar a class, or a folder of these; and the lists."""
        write = {"rar": write_rar, "zip": write_zip}[kind]
        classes = {}
        for label in ("brush_hair", "cartwheel", "wave"):
            clips = sorted((source / CLIPS_FOLDER / label).iterdir())
            files = {f"{label}/{clip.name}": clip.read_bytes() for clip in clips}
            folder = tmp_path / ("in" if shape == "class archives" else "elsewhere")
            archive = write(folder / f"{label}.{kind}", files)
            classes[archive.name] = archive.read_bytes()
        if shape == "one archive":
            write(tmp_path / "in" / f"hmdb51_org.{kind}", classes)
        lists = {
            f"{LISTS_FOLDER}/{p.name}": p.read_bytes() for p in (source / LISTS_FOLDER).iterdir()
        }
        write(tmp_path / "in" / f"test_train_splits.{kind}", lists)
        prepared = prepare("hmdb51", tmp_path / "in", tmp_path / "out")
        assert (prepared.made, prepared.missing, prepared.bad) == (12, (), ())
        assert not (tmp_path / "out" / ".extracted").exists()
        assert read(tmp_path / "out" / "videos" / "wave" / "wave_clip_0.avi").frames.std() > 10
        assert prepare("hmdb51", tmp_path / "in", tmp_path / "out").made == 0

    @pytest.mark.usefixtures("extractor")
    def test_damaged_archive(self, tmp_path: Path) -> None:
        """An archive that does not extract leaves nothing behind and is named."""
        (tmp_path / "a.rar").write_bytes(b"Rar!\x1a\x07\x00" + b"damage" * 50)
        with pytest.raises(DatasetError, match=r"a\.rar: cannot be extracted; "):
            extract(tmp_path / "a.rar", tmp_path / "out")
        assert not {"out", ".out.part"} & {path.name for path in tmp_path.iterdir()}

    @pytest.mark.parametrize("tool", ["bsdtar", "unrar", "7zz", "7z"])
    def test_each_extractor(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
    ) -> None:
        """Each is called as it wants to be, and names of files may hold blanks."""
        archive = write_rar(tmp_path / "an archive.rar", {"wave/a b.avi": b"clip"})
        monkeypatch.setenv("PATH", stand_in(tmp_path / "bin", tool))
        extract(archive, tmp_path / "the out")
        assert (tmp_path / "the out" / "wave" / "a b.avi").read_bytes() == b"clip"

    def test_the_next_extractor_is_asked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where one cannot do it, as a 7z without RAR, the next that is installed is asked."""
        archive = write_rar(tmp_path / "a.rar", {"b.avi": b"clip"})
        monkeypatch.setenv("PATH", stand_in(tmp_path / "bin", "bsdtar"))
        failing = tmp_path / "bin" / "7z"
        failing.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no codec for this')\n")
        failing.chmod(0o755)
        extract(archive, tmp_path / "out")
        assert (tmp_path / "out" / "b.avi").read_bytes() == b"clip"
        archive.write_bytes(archive.read_bytes()[:40] + b"x" * 40)
        with pytest.raises(
            DatasetError, match=r"7z: no codec for this; bsdtar: the header at byte"
        ):
            extract(archive, tmp_path / "again")

    @pytest.mark.usefixtures("extractor")
    def test_links_in_archives_are_ignored(self, tmp_path: Path, source: Path) -> None:
        """A link that an archive brings is no clip: it could lead to any file of the user's."""
        mine = source / CLIPS_FOLDER / "wave" / "wave_clip_0.avi"
        (tmp_path / "in").mkdir()
        with tarfile.open(tmp_path / "in" / "wave.rar", "w") as archive:  # told by its contents
            link = tarfile.TarInfo("wave/wave_clip_0.avi")
            link.type, link.linkname = tarfile.SYMTYPE, str(mine)
            archive.addfile(link)
            archive.add(mine, "wave/wave_clip_1.avi")
        found = find_clips(
            tmp_path / "in",
            ["wave_clip_0.avi", "wave_clip_1.avi"],
            tmp_path / "staging",
            Quiet(),
        )
        assert list(found) == ["wave_clip_1.avi"]

    def test_no_extractor(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a program that extracts, the message says how to get one."""
        write_rar(tmp_path / "a.rar", {"b.avi": b"x"})
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(DependencyError, match=r"7z, unrar or bsdtar, .* apt install"):
            extract(tmp_path / "a.rar", tmp_path / "out")
