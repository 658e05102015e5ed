"""The official split lists, and errors in them."""

from pathlib import Path

import pytest

from i3dzoo.checkpoints.labels import labels
from i3dzoo.errors import DatasetError, MissingFileError
from i3dzoo.video import read_splits


def hmdb51(folder: Path, **lines: str) -> Path:
    """Write three equal lists a class."""
    folder.mkdir(exist_ok=True)
    for label, text in lines.items():
        for split in (1, 2, 3):
            (folder / f"{label}_test_split{split}.txt").write_text(text)
    return folder


def ucf101(folder: Path) -> Path:
    """Write UCF101's lists for two classes of three clips."""
    (folder / "classInd.txt").write_text("1 YoYo\r\n2 Archery\r\n")
    for split in (1, 2, 3):
        (folder / f"trainlist0{split}.txt").write_text(
            "YoYo/v_YoYo_g08_c01.avi 1\r\nArchery/v_Archery_g08_c01.avi 2\r\n"
        )
        (folder / f"testlist0{split}.txt").write_text("YoYo/v_YoYo_g01_c01.avi\r\n")
    return folder


class TestHmdb51:
    @pytest.mark.real_data
    def test_official(self, test_data: Path) -> None:
        """51 classes in the order of our label set, 6,766 clips, 3,570 + 1,530 in each split."""
        lists = read_splits(test_data / "hmdb51_splits", "hmdb51")
        assert lists.classes == labels("hmdb51")
        assert len(lists.clips) == 6766
        for split in (1, 2, 3):
            assert (lists.count(split, "train"), lists.count(split, "test")) == (3570, 1530)
            for label in lists.classes:
                roles = [clip.roles[split - 1] for clip in lists.clips if clip.label == label]
                assert (roles.count("train"), roles.count("test")) == (70, 30)
        assert lists.differences() == ()

    def test_roles(self, tmp_path: Path) -> None:
        """0 is unused, 1 training, 2 test; names may contain spaces, and lines end in blanks."""
        folder = hmdb51(tmp_path, wave="a b.avi 0 \nc!(1).avi 1 \nd.avi 2 \n")
        (folder / "wave_test_split3.txt").write_text("a b.avi 1\nc!(1).avi 2\nd.avi 0\n")
        clips = {clip.file: clip.roles for clip in read_splits(folder, "hmdb51").clips}
        assert clips == {
            "a b.avi": (None, None, "train"),
            "c!(1).avi": ("train", "train", "test"),
            "d.avi": ("test", "test", None),
        }

    @pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
    def test_names_that_are_not_ascii(self, tmp_path: Path, encoding: str) -> None:
        """Lists are UTF-8 or else Latin-1, and only a line feed ends a line."""
        folder, names = hmdb51(tmp_path, wave=""), ("café.avi", "a\x85b.avi", "a\xa0b.avi")
        for split in (1, 2, 3):
            text = "".join(f"{name} 1\r\n" for name in names)
            (folder / f"wave_test_split{split}.txt").write_bytes(text.encode(encoding))
        assert {clip.file for clip in read_splits(folder, "hmdb51").clips} == set(names)

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    def test_byte_order_marks(self, tmp_path: Path, encoding: str) -> None:
        """The mark of a list that an editor has saved is not a part of its first clip."""
        folder = hmdb51(tmp_path, wave="")
        for split in (1, 2, 3):
            path = folder / f"wave_test_split{split}.txt"
            path.write_bytes("a.avi 1\r\nb.avi 2\r\n".encode(encoding))
        assert [clip.file for clip in read_splits(folder, "hmdb51").clips] == ["a.avi", "b.avi"]

    def test_differences(self, tmp_path: Path) -> None:
        """Differences from the numbers of the official lists are described in words."""
        lists = read_splits(hmdb51(tmp_path, wave="a.avi 1\n"), "hmdb51")
        assert lists.differences()[:2] == (
            "1 classes, HMDB51 has 51",
            "1 clips, HMDB51 has 6,766",
        )

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            *(
                ({"wave": f"ok.avi 1\n{line}\n"}, r"split1\.txt, line 2: expected '<file")
                for line in ("a.avi 3", "a.avi", "../a.avi 1", "..\\a.avi 1", " 1", "/etc/a.avi 1")
            ),
            ({"wave": "a.avi 1\na.avi 2\n"}, r"line 2: 'a\.avi' is listed twice"),
            ({"wave": "a.avi 1\n", "walk": "A.avi 1\n"}, r"'a\.avi' is listed in 2 classes"),
        ],
    )
    def test_bad_lines(self, tmp_path: Path, lines: dict[str, str], message: str) -> None:
        """A malformed line, a path to another folder, and a name listed twice are named."""
        with pytest.raises(DatasetError, match=message):
            read_splits(hmdb51(tmp_path, **lines), "hmdb51")

    def test_lists_differ(self, tmp_path: Path) -> None:
        """The three lists of a class must have the same clips."""
        folder = hmdb51(tmp_path, wave="a.avi 1\n")
        (folder / "wave_test_split2.txt").write_text("b.avi 1\n")
        with pytest.raises(DatasetError, match=r"split2\.txt: 'a\.avi' is not in both"):
            read_splits(folder, "hmdb51")

    def test_missing(self, tmp_path: Path) -> None:
        """Missing folders, empty folders and missing lists say what is expected."""
        with pytest.raises(MissingFileError, match="no such folder; expected"):
            read_splits(tmp_path / "none", "hmdb51")
        with pytest.raises(MissingFileError, match="holds no HMDB51 split lists"):
            read_splits(tmp_path, "hmdb51")
        hmdb51(tmp_path, wave="a.avi 1\n")
        (tmp_path / "wave_test_split3.txt").unlink()
        with pytest.raises(MissingFileError, match=r"wave_test_split3\.txt: the list is missing"):
            read_splits(tmp_path, "hmdb51")


class TestUcf101:
    def test_order_is_that_of_classind(self, tmp_path: Path) -> None:
        """Classes keep their numbers, and lines may have a number or none."""
        lists = read_splits(ucf101(tmp_path), "ucf101")
        assert lists.classes == ("YoYo", "Archery")
        assert [(clip.file, clip.roles[0]) for clip in lists.clips] == [
            ("v_YoYo_g01_c01.avi", "test"),
            ("v_YoYo_g08_c01.avi", "train"),
            ("v_Archery_g08_c01.avi", "train"),
        ]
        assert lists.differences()[0] == "2 classes, UCF101 has 101"

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    def test_byte_order_marks(self, tmp_path: Path, encoding: str) -> None:
        """The mark of a list that an editor has saved is not a part of its first line."""
        before = read_splits(ucf101(tmp_path), "ucf101")
        for path in tmp_path.iterdir():
            path.write_bytes(path.read_text().encode(encoding))
        assert read_splits(tmp_path, "ucf101") == before

    def test_names_with_spaces(self, tmp_path: Path) -> None:
        """Only in training lists, the number after a name is not part of it."""
        ucf101(tmp_path)
        (tmp_path / "trainlist01.txt").write_text("YoYo/a b.avi 1\nYoYo/c 2.avi\n")
        (tmp_path / "testlist01.txt").write_text("YoYo/d 3\n")
        clips = {clip.file: clip.roles[0] for clip in read_splits(tmp_path, "ucf101").clips}
        assert clips.items() >= {("a b.avi", "train"), ("c 2.avi", "train"), ("d 3", "test")}

    @pytest.mark.parametrize(
        ("file", "text", "message"),
        [
            *(
                ("trainlist01.txt", line, r"line 1: expected '<class>/")
                for line in ("Nope/a.avi 1", "a.avi", "YoYo/../a.avi")
            ),
            (
                "testlist02.txt",
                "YoYo/v_YoYo_g08_c01.avi",
                r"testlist02\.txt, line 1: .* already in split 2, as train",
            ),
            (
                "classInd.txt",
                "1 YoYo\n3 Archery",
                r"classInd\.txt, line 2: .*expected '2 <class>'",
            ),
        ],
    )
    def test_bad_lines(self, tmp_path: Path, file: str, text: str, message: str) -> None:
        """Unknown classes, paths, wrong numbers, and clips in both halves of a split are named."""
        (ucf101(tmp_path) / file).write_text(f"{text}\n")
        with pytest.raises(DatasetError, match=message):
            read_splits(tmp_path, "ucf101")

    def test_missing_list(self, tmp_path: Path) -> None:
        """All seven files must exist."""
        (ucf101(tmp_path) / "testlist03.txt").unlink()
        with pytest.raises(MissingFileError, match=r"testlist03\.txt: the list is missing"):
            read_splits(tmp_path, "ucf101")
