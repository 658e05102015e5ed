"""The official lists: what they say, and everything that can be wrong with them."""

from pathlib import Path

import pytest

from i3dzoo.errors import DatasetError, MissingFileError
from i3dzoo.labels import labels
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
        """0 is unused, 1 trains, 2 tests; names may hold spaces and end lines blanks."""
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
        """Lists are UTF-8, and Latin-1 where they are not; only a line feed ends a line."""
        folder, names = hmdb51(tmp_path, wave=""), ("café.avi", "a\x85b.avi", "a\xa0b.avi")
        for split in (1, 2, 3):
            text = "".join(f"{name} 1\r\n" for name in names)
            (folder / f"wave_test_split{split}.txt").write_bytes(text.encode(encoding))
        assert {clip.file for clip in read_splits(folder, "hmdb51").clips} == set(names)

    def test_differences(self, tmp_path: Path) -> None:
        """Lists of another number are told apart from the official ones, in words."""
        lists = read_splits(hmdb51(tmp_path, wave="a.avi 1\n"), "hmdb51")
        assert lists.differences()[:2] == (
            "1 classes, HMDB51 has 51",
            "1 clips, HMDB51 has 6,766",
        )

    @pytest.mark.parametrize(
        "line", ["a.avi 3", "a.avi", "../a.avi 1", "..\\a.avi 1", " 1", "/etc/a.avi 1"]
    )
    def test_bad_line(self, tmp_path: Path, line: str) -> None:
        """A line of another form, or a name that leads elsewhere, is named with its number."""
        folder = hmdb51(tmp_path, wave=f"ok.avi 1\n{line}\n")
        with pytest.raises(DatasetError, match=r"split1\.txt, line 2: is .*expected '<file"):
            read_splits(folder, "hmdb51")

    def test_listed_twice(self, tmp_path: Path) -> None:
        """The same name twice in a list, or in two classes, is an error."""
        with pytest.raises(DatasetError, match=r"line 2: 'a\.avi' is listed twice"):
            read_splits(hmdb51(tmp_path / "1", wave="a.avi 1\na.avi 2\n"), "hmdb51")
        with pytest.raises(DatasetError, match=r"'a\.avi' is listed in 2 classes"):
            read_splits(hmdb51(tmp_path / "2", wave="a.avi 1\n", walk="A.avi 1\n"), "hmdb51")

    def test_lists_differ(self, tmp_path: Path) -> None:
        """The three lists of a class must be of the same clips."""
        folder = hmdb51(tmp_path, wave="a.avi 1\n")
        (folder / "wave_test_split2.txt").write_text("b.avi 1\n")
        with pytest.raises(DatasetError, match=r"split2\.txt: 'a\.avi' is in only one of"):
            read_splits(folder, "hmdb51")

    def test_missing(self, tmp_path: Path) -> None:
        """A missing folder, an empty one and a missing list each say what is expected."""
        with pytest.raises(MissingFileError, match="no such folder; it should hold"):
            read_splits(tmp_path / "none", "hmdb51")
        with pytest.raises(MissingFileError, match="holds no HMDB51 split lists"):
            read_splits(tmp_path, "hmdb51")
        hmdb51(tmp_path, wave="a.avi 1\n")
        (tmp_path / "wave_test_split3.txt").unlink()
        with pytest.raises(MissingFileError, match=r"wave_test_split3\.txt: is missing"):
            read_splits(tmp_path, "hmdb51")


class TestUcf101:
    def test_order_is_that_of_classind(self, tmp_path: Path) -> None:
        """Classes keep their numbers, and lines with and without a number are read."""
        lists = read_splits(ucf101(tmp_path), "ucf101")
        assert lists.classes == ("YoYo", "Archery")
        assert [(clip.file, clip.roles[0]) for clip in lists.clips] == [
            ("v_YoYo_g01_c01.avi", "test"),
            ("v_YoYo_g08_c01.avi", "train"),
            ("v_Archery_g08_c01.avi", "train"),
        ]
        assert lists.differences()[0] == "2 classes, UCF101 has 101"

    def test_names_with_spaces(self, tmp_path: Path) -> None:
        """Only the number of the class after a name of a training list is no part of the name."""
        ucf101(tmp_path)
        (tmp_path / "trainlist01.txt").write_text("YoYo/a b.avi 1\nYoYo/c 2.avi\n")
        (tmp_path / "testlist01.txt").write_text("YoYo/d 3\n")
        clips = {clip.file: clip.roles[0] for clip in read_splits(tmp_path, "ucf101").clips}
        assert clips.items() >= {("a b.avi", "train"), ("c 2.avi", "train"), ("d 3", "test")}

    def test_train_and_test_overlap(self, tmp_path: Path) -> None:
        """A clip in both halves of a split is an error."""
        (ucf101(tmp_path) / "testlist02.txt").write_text("YoYo/v_YoYo_g08_c01.avi\n")
        with pytest.raises(
            DatasetError, match=r"testlist02\.txt, line 1: .* in split 2 already, as train"
        ):
            read_splits(tmp_path, "ucf101")

    @pytest.mark.parametrize("line", ["Nope/a.avi 1", "a.avi", "YoYo/../a.avi"])
    def test_bad_line(self, tmp_path: Path, line: str) -> None:
        """An unknown class, none at all, or a path is an error with its line."""
        (ucf101(tmp_path) / "trainlist01.txt").write_text(f"{line}\n")
        with pytest.raises(DatasetError, match=r"line 1: is .*expected '<class>/"):
            read_splits(tmp_path, "ucf101")

    def test_numbers_must_count(self, tmp_path: Path) -> None:
        """classInd.txt counts from 1."""
        (ucf101(tmp_path) / "classInd.txt").write_text("1 YoYo\n3 Archery\n")
        with pytest.raises(DatasetError, match=r"classInd\.txt, line 2: .*expected '2 <class>'"):
            read_splits(tmp_path, "ucf101")

    def test_missing_list(self, tmp_path: Path) -> None:
        """Each of the seven files must be there."""
        (ucf101(tmp_path) / "testlist03.txt").unlink()
        with pytest.raises(MissingFileError, match=r"testlist03\.txt: is missing"):
            read_splits(tmp_path, "ucf101")
