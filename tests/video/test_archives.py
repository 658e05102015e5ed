"""Datasets in archives: finding and extracting them, and links in hostile archives."""

import os
import shutil
import sys
import tarfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import rar_extractor
from helpers.progress import RecordedProgress
from helpers.video_data import write_rar, write_zip

from i3dzoo.errors import DatasetError, DependencyError
from i3dzoo.progress import SILENT
from i3dzoo.video import read
from i3dzoo.video.archives import extract, find_clips
from i3dzoo.video.generate import CLIPS_FOLDER, LISTS_FOLDER
from i3dzoo.video.prepare import prepare

EXTRACTOR = any(shutil.which(name) for name in ("bsdtar", "unrar", "7zz"))  # 7z may lack RAR


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A function that puts a stand-in for an extractor into a folder, which becomes the PATH."""

    def write(tool: str) -> Path:
        path = tmp_path / "bin" / tool
        path.parent.mkdir()
        path.write_text(f"#!{sys.executable}\n{Path(rar_extractor.__file__).read_text()}")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(path.parent))
        return path

    return write


@pytest.fixture
def extractor(stand_in: Callable[[str], Path]) -> None:
    """An extractor: an installed one, or a stand-in."""
    if not EXTRACTOR:
        stand_in("bsdtar")


@pytest.mark.skipif(os.name != "posix", reason="the stand-in is a script")
class TestArchives:
    @pytest.mark.parametrize("shape", ["one archive", "class archives"])
    @pytest.mark.parametrize("kind", ["zip", "rar"])
    @pytest.mark.usefixtures("extractor")
    def test_archive_of_class_archives(
        self, tmp_path: Path, source: Path, kind: str, shape: str
    ) -> None:
        """One .rar with a .rar for each class (the official shape), or a folder of these."""
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
        """A damaged archive is an error that names it, and leaves nothing behind."""
        (tmp_path / "a.rar").write_bytes(b"Rar!\x1a\x07\x00" + b"damage" * 50)
        with pytest.raises(DatasetError, match=r"a\.rar: cannot be extracted; "):
            extract(tmp_path / "a.rar", tmp_path / "out")
        assert not {"out", ".out.part"} & {path.name for path in tmp_path.iterdir()}

    @pytest.mark.parametrize("tool", ["bsdtar", "unrar", "7zz", "7z"])
    def test_each_extractor(
        self, tmp_path: Path, stand_in: Callable[[str], Path], tool: str
    ) -> None:
        """Each extractor gets its own options, and file names may contain spaces."""
        archive = write_rar(tmp_path / "an archive.rar", {"wave/a b.avi": b"clip"})
        stand_in(tool)
        extract(archive, tmp_path / "the out")
        assert (tmp_path / "the out" / "wave" / "a b.avi").read_bytes() == b"clip"

    def test_the_next_extractor_is_tried(
        self, tmp_path: Path, stand_in: Callable[[str], Path]
    ) -> None:
        """If one extractor fails, such as a 7z without RAR, the next installed one is tried."""
        archive = write_rar(tmp_path / "a.rar", {"b.avi": b"clip"})
        failing = stand_in("bsdtar").with_name("7z")
        failing.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no codec for this')\n")
        failing.chmod(0o755)
        extract(archive, tmp_path / "out")
        assert (tmp_path / "out" / "b.avi").read_bytes() == b"clip"
        archive.write_bytes(archive.read_bytes()[:40] + b"x" * 40)
        message = "7z: no codec for this; bsdtar: the header at byte"
        with pytest.raises(DatasetError, match=message):
            extract(archive, tmp_path / "again")

    @pytest.mark.usefixtures("extractor")
    def test_links_in_archives_are_ignored(self, tmp_path: Path, source: Path) -> None:
        """A link in an archive is not a clip, since it could lead to any file of the user."""
        mine = source / CLIPS_FOLDER / "wave" / "wave_clip_0.avi"
        (tmp_path / "in").mkdir()
        with tarfile.open(tmp_path / "in" / "wave.rar", "w") as archive:  # told by its contents
            link = tarfile.TarInfo("wave/wave_clip_0.avi")
            link.type, link.linkname = tarfile.SYMTYPE, str(mine)
            archive.addfile(link)
            archive.add(mine, "wave/wave_clip_1.avi")
        names = ["wave_clip_0.avi", "wave_clip_1.avi"]
        files = find_clips(tmp_path / "in", names, tmp_path / "staging", SILENT)
        assert list(files) == ["wave_clip_1.avi"]

    def test_archives_of_one_name(self, tmp_path: Path) -> None:
        """Each of two archives of the same name is extracted."""
        for folder in ("a", "b"):
            write_zip(tmp_path / "in" / folder / "clips.zip", {f"{folder}.avi": b"clip"})
        files = find_clips(tmp_path / "in", ["a.avi", "b.avi"], tmp_path / "staging", SILENT)
        assert sorted(files) == ["a.avi", "b.avi"]

    def test_no_extractor(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without an extractor, the message says how to install one."""
        write_rar(tmp_path / "a.rar", {"b.avi": b"x"})
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(DependencyError, match=r"7z, unrar or bsdtar, .* apt install"):
            extract(tmp_path / "a.rar", tmp_path / "out")


@pytest.mark.skipif(os.name != "posix", reason="makes links")
class TestLinkedFolders:
    def test_class_folders(self, tmp_path: Path) -> None:
        """Class folders may be links; links that form cycles are read once."""
        store = tmp_path / "store" / "wave"
        store.mkdir(parents=True)
        (store / "a.avi").touch()
        (store / "again").symlink_to(store)
        source = tmp_path / "source"
        source.mkdir()
        (source / "wave").symlink_to(store)
        (source / "loop").symlink_to(source)
        files = find_clips(source, ["a.avi", "b.avi"], tmp_path / "staging", SILENT)
        assert files == {"a.avi": source / "wave" / "a.avi"}

    def test_a_link_upwards(self, tmp_path: Path) -> None:
        """A link to a folder that holds the source leads to nothing outside of it."""
        source = tmp_path / "home" / "source"
        source.mkdir(parents=True)
        (tmp_path / "home" / "a.avi").touch()
        (source / "up").symlink_to(tmp_path)
        assert find_clips(source, ["a.avi"], tmp_path / "staging", SILENT) == {}


def test_two_files_of_a_name(tmp_path: Path) -> None:
    """Of two different files of a name, the one that is taken is said; equal ones are not."""
    for name, data in (("a/x.avi", b"1"), ("b/x.avi", b"22"), ("a/y.avi", b"1"), ("b/y.avi", b"1")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    remarks = RecordedProgress()
    files = find_clips(tmp_path, ["x.avi", "y.avi"], tmp_path / "staging", remarks)
    assert files["x.avi"] == tmp_path / "a" / "x.avi"
    (remark,) = remarks.messages
    assert remark.startswith("1 of the clips")
    assert f"{files['x.avi']}, and not {tmp_path / 'b' / 'x.avi'}" in remark


@pytest.mark.parametrize("name", ["A.AVI", "a.ogv", "a.GIF", "a.m4v", "a.npy", "caf\u00e9.mp4"])
def test_names(tmp_path: Path, name: str) -> None:
    """A clip of any suffix is found by its name, in any case and Unicode form."""
    (tmp_path / unicodedata.normalize("NFD", name.swapcase())).touch()
    assert list(find_clips(tmp_path, [name], tmp_path / "staging", SILENT)) == [name]
