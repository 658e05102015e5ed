"""Folders and lists of videos: which videos, classes, parts and segments are read from them."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from i3dzoo.errors import DatasetError, MissingFileError
from i3dzoo.video.sources import ListedVideo, VideoList, read_source
from i3dzoo.video.tables import read_table

Facts = list[tuple[str, str, str | None, float | None, float | None]]


def touch(root: Path, *names: str) -> Path:
    """Make files that stand for videos; nothing opens them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"video")
    return root


def facts(root: Path, videos: VideoList) -> Facts:
    """Return what is known of each video."""

    def fact(v: ListedVideo) -> tuple[str, str, str | None, float | None, float | None]:
        return v.path.relative_to(root).as_posix(), v.label, v.role, v.start, v.end

    return [fact(video) for video in videos.videos]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two classes with two videos each."""
    return touch(tmp_path / "clips", "run/a.mp4", "run/b.mp4", "wave/c d.mp4", "wave/é.mp4")


class TestFolders:
    def test_what_people_have(self, tmp_path: Path) -> None:
        """Suffixes in any case, links, long names; what is no video is left out, and named."""
        long = "x" * 240 + ".mp4"
        names = ("a.AVI", "b.mov", "c.MKV", "d.webm", "e.m4v", "f.gif", "g.wmv", "h.flv", "i.ts")
        touch(tmp_path, *(f"1/{name}" for name in (*names, "j.3gp", long)), "10/deep/k.mp4")
        touch(tmp_path, "2/y.mp4", "1/Thumbs.db", "1/.z.mp4", "1/notes.txt", "loose.mp4")
        (tmp_path / "none").mkdir()
        (tmp_path / "2/link.mp4").symlink_to("../1/b.mov")
        (tmp_path / "2/broken.mp4").symlink_to("gone.mp4")
        (tmp_path / "2/loop").symlink_to("..")
        videos = read_source(tmp_path)
        assert videos.classes == ("1", "2", "10")  # numbers are in the order of their values
        files = [name for name, *_ in facts(tmp_path, videos)]
        assert {f"1/{name}" for name in (*names, "j.3gp", long)} < set(files)
        assert {"2/broken.mp4", "2/link.mp4", "2/y.mp4", "10/deep/k.mp4"} < set(files)
        assert len(files) == 15
        notes = "\n".join(videos.notes)
        assert "loose.mp4" in notes
        assert "without videos, left out: none" in notes
        assert "1 .txt" in notes
        assert "Thumbs.db" not in notes

    def test_names_that_are_not_text(self, clips: Path) -> None:
        """A file whose name is not UTF-8 is left out, and named."""
        Path(os.fsdecode(os.fsencode(clips / "run") + b"/\xff.mp4")).write_bytes(b"video")
        videos = read_source(clips)
        assert len(videos.videos) == 4
        assert "is not UTF-8" in videos.notes[0]

    def test_parts(self, tmp_path: Path) -> None:
        """train/, validation/ and test/ above the classes are the parts."""
        touch(tmp_path, "train/run/a.mp4", "Validation/run/b.mp4", "test/wave/c.mp4")
        videos = read_source(tmp_path)
        assert sorted(fact[1:3] for fact in facts(tmp_path, videos)) == [
            ("run", "train"), ("run", "val"), ("wave", "test")
        ]  # fmt: skip

    def test_a_class_named_as_a_part(self, tmp_path: Path) -> None:
        """Beside other classes, `train` is a class."""
        videos = read_source(touch(tmp_path, "train/a.mp4", "plane/b.mp4"))
        assert videos.classes == ("plane", "train")
        assert {video.role for video in videos.videos} == {None}

    @pytest.mark.parametrize(
        ("names", "reason"),
        [
            (("a.mp4", "b.mp4"), "holds 2 videos, but no class folders"),
            (("train/a.mp4", "test/b.mp4"), "no class folders there"),
            (("run/1.jpg", "wave/2.jpg"), "holds 2 images.*and no videos"),
            (("run/notes.txt",), "holds no videos"),
            ((), "it is empty"),
        ],
    )
    def test_no_class_folders(self, tmp_path: Path, names: tuple[str, ...], reason: str) -> None:
        """A folder that cannot be used is refused with what it holds and what is expected."""
        with pytest.raises(DatasetError, match=f"{reason}.*<class>/<video>"):
            read_source(touch(tmp_path, *names))

    def test_videofolder(self, tmp_path: Path) -> None:
        """metadata.csv and metadata.jsonl of the Hub's videofolder have the classes."""
        touch(tmp_path, "train/a.mp4", "train/b.mp4", "test/c.mp4")
        (tmp_path / "train/metadata.csv").write_text("file_name,label\na.mp4,run\nb.mp4,wave\n")
        line = {"file_name": "c.mp4", "label": "run"}
        (tmp_path / "test/metadata.jsonl").write_text(json.dumps(line) + "\n")
        assert sorted(facts(tmp_path, read_source(tmp_path))) == [
            ("test/c.mp4", "run", "test", None, None),
            ("train/a.mp4", "run", "train", None, None),
            ("train/b.mp4", "wave", "train", None, None),
        ]

    def test_metadata_above_the_parts(self, tmp_path: Path) -> None:
        """One metadata.csv names the parts in its paths."""
        touch(tmp_path, "train/a.mp4", "test/c.mp4")
        (tmp_path / "metadata.csv").write_text("file_name,label\ntrain/a.mp4,x\ntest/c.mp4,y\n")
        assert [fact[2] for fact in facts(tmp_path, read_source(tmp_path))] == ["train", "test"]

    def test_lists_of_parts(self, tmp_path: Path) -> None:
        """train.csv and val.csv, as SlowFast and PyTorchVideo have them, beside the videos."""
        touch(tmp_path, "videos/a.mp4", "videos/b.mp4")
        (tmp_path / "train.csv").write_text("videos/a.mp4 0\n")
        (tmp_path / "val.csv").write_text("videos/b.mp4 1\n")
        assert facts(tmp_path, read_source(tmp_path)) == [
            ("videos/a.mp4", "0", "train", None, None),
            ("videos/b.mp4", "1", "val", None, None),
        ]


ROWS = [
    ("run/a.mp4", "run"),
    ("run/b.mp4", "run"),
    ("wave/c d.mp4", "wave"),
    ("wave/é.mp4", "wave"),
]


class TestLists:
    @pytest.mark.parametrize("delimiter", [",", "\t", ";"])
    @pytest.mark.parametrize("heading", ["path label", "Video Path,Class", "file_name,category"])
    def test_tables(self, clips: Path, delimiter: str, heading: str) -> None:
        """CSV and TSV, with the usual names of columns, and a byte order mark."""
        names = heading.split("," if "," in heading else " ")
        lines = [delimiter.join(row) for row in (names, *ROWS)]
        (clips / "list.csv").write_text("\n".join(lines), "utf-8-sig")
        videos = read_source(clips / "list.csv")
        assert [(path, label) for path, label, *_ in facts(clips, videos)] == ROWS
        assert videos.classes == ("run", "wave")

    @pytest.mark.parametrize("suffix", [".txt", ".csv"])
    def test_lines(self, clips: Path, suffix: str) -> None:
        """`path label` of mmaction2 and PyTorchVideo: a path may have spaces; ids have names."""
        path = clips / f"list{suffix}"
        path.write_text("# a remark\n" + "".join(f"{p} {int(c == 'wave')}\n" for p, c in ROWS))
        assert read_source(path).classes == ("0", "1")
        (clips / "classes.txt").write_text("run\nwave\n")
        videos = read_source(path)
        assert [(path, label) for path, label, *_ in facts(clips, videos)] == ROWS
        assert str(clips / "classes.txt") in videos.notes[0]
        named = read_source(path, labels=["one", "two", "three"])
        assert named.classes == ("one", "two", "three")
        assert named.videos[2].label == "two"
        assert "no videos: three" in named.notes[0]

    def test_json_lines_and_parquet(self, clips: Path, tmp_path: Path) -> None:
        """JSON lines and parquet have the same columns; parts and segments are read."""
        rows = [
            {"video": path, "label": label, "split": part, "start": start, "end": end}
            for (path, label), (part, start, end) in zip(
                ROWS,
                (("train", None, None), ("validation", 0, 2), ("test", 1.5, 3), ("train", 2, None)),
                strict=True,
            )
        ]
        (clips / "list.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "list.parquet")
        expected: Facts = [
            ("run/a.mp4", "run", "train", None, None),
            ("run/b.mp4", "run", "val", 0, 2),
            ("wave/c d.mp4", "wave", "test", 1.5, 3),
            ("wave/é.mp4", "wave", "train", 2, None),
        ]
        assert facts(clips, read_source(clips / "list.jsonl")) == expected
        assert facts(clips, read_source(tmp_path / "list.parquet", root=clips)) == expected

    def test_kinetics(self, tmp_path: Path) -> None:
        """Kinetics' lists name videos by id and seconds, as the usual files are named."""
        touch(tmp_path, "data/archery/AbC_d-12345_000010_000020.mp4", "data/x/FullVideo01.webm")
        (tmp_path / "train.csv").write_text(
            "label,youtube_id,time_start,time_end,split\n"
            "archery,AbC_d-12345,10,20,train\nzumba,FullVideo01,5,15,validate\n"
            "zumba,NotThere001,5,15,train\n"
        )
        videos = read_source(tmp_path / "train.csv")
        cut, full, gone = videos.videos
        assert (cut.path.name, cut.start, cut.end) == ("AbC_d-12345_000010_000020.mp4", None, None)
        assert (full.path.name, full.start, full.end, full.may_be_cut) == (
            "FullVideo01.webm", 5, 15, True
        )  # fmt: skip
        assert (full.role, full.label) == ("val", "zumba")
        assert gone.error == "there is no such file"

    def test_names_below_the_folder(self, clips: Path, tmp_path: Path) -> None:
        """A name without folder and suffix is found below --root; two such files are refused."""
        (tmp_path / "l.csv").write_text("video,label\nA,run\nc d,wave\n")
        videos = read_source(tmp_path / "l.csv", root=clips).videos
        assert [video.path.name for video in videos] == ["a.mp4", "c d.mp4"]
        touch(clips, "wave/a.avi")
        with pytest.raises(DatasetError, match=r"line 2: 'A' may be .*a\.mp4 or .*a\.avi"):
            read_source(tmp_path / "l.csv", root=clips)

    def test_clock_times(self, clips: Path) -> None:
        """Seconds may be written as hours, minutes and seconds."""
        (clips / "l.csv").write_text("path,label,start,end\nrun/a.mp4,run,01:05,1:02:03.5\n")
        row = read_table(clips / "l.csv")[0][0]
        assert (row.start, row.end) == (65, 3723.5)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "is empty"),
            ("path,label\n", "lists no videos"),
            ("path,size\nrun/a.mp4,3\n", "a column with the label.*found path, size"),
            ("name_of_it,label\na,run\n", "a column with the path"),
            ("path,label\nrun/a.mp4\n", "line 2: expected 2 columns"),
            ("path,label\nrun/a.mp4,\n", "line 2: has no label"),
            ("path,label,split\nrun/a.mp4,run,holdout\n", "line 2: the split is 'holdout'"),
            ("path,label,start\nrun/a.mp4,run,soon\n", "line 2: start is 'soon'"),
            ("path,label,start,end\nrun/a.mp4,run,5,5\n", "ends at 5 s.*after its start at 5 s"),
            ("path,label,start_frame\nrun/a.mp4,run,5\n", "start_frame; expected.*in seconds"),
            ("path,label\nrun/a.mp4,run;wave\n", "line 2: expected one class, found several"),
            ("run/a.mp4 0 3\n", "line 1: expected one class, found several"),
            ("run/a 300 3\n", "line 1: .*a folder, a number of frames and a class"),
            ("path,label\nrun/a.mp4,run\nrun/a.mp4,wave\n", "expected one class.*run and wave"),
            ("path,label,split\nrun/a.mp4,x,train\nrun/a.mp4,x,test\n", "in train and in test"),
        ],
    )
    def test_malformed(self, clips: Path, text: str, reason: str) -> None:
        """A list that cannot be used is refused with its line and what is expected."""
        (clips / "list.csv").write_text(text)
        with pytest.raises(DatasetError, match=rf"list\.csv.*{reason}"):
            read_source(clips / "list.csv")

    def test_several_classes_in_json(self, clips: Path) -> None:
        """A list of classes is refused; a list of one class is the class."""
        path = clips / "list.jsonl"
        path.write_text('{"path": "run/a.mp4", "labels": ["run"]}\n')
        assert read_source(path).videos[0].label == "run"
        path.write_text('{"path": "run/a.mp4", "labels": ["run", "wave"]}\n')
        with pytest.raises(DatasetError, match=r"expected one class.*run, wave.*--annotations"):
            read_source(path)

    def test_two_columns_for_one_thing(self, clips: Path) -> None:
        """Of two columns with classes, the one that is read is named."""
        (clips / "l.csv").write_text("path,label,class\nrun/a.mp4,x,y\n")
        videos = read_source(clips / "l.csv")
        assert videos.videos[0].label == "x"
        assert "reads the column label, and not class" in videos.notes[0]

    def test_labels_that_do_not_fit(self, clips: Path) -> None:
        """Unknown names and numbers that are too large are refused; numbers from 1 are named."""
        (clips / "l.csv").write_text("path,label\nrun/a.mp4,1\nwave/é.mp4,2\n")
        with pytest.raises(DatasetError, match=r"class number 2; expected 0 to 1.*start at 0"):
            read_source(clips / "l.csv", labels=["run", "wave"])
        with pytest.raises(DatasetError, match=r"class 'run', which is not among the 2"):
            read_source(clips, labels=["walk", "wave"])

    def test_nothing_there(self, clips: Path, tmp_path: Path) -> None:
        """Missing sources, and lists without any video, are named."""
        with pytest.raises(MissingFileError, match=r"gone: no such file or folder"):
            read_source(tmp_path / "gone")
        (tmp_path / "l.csv").write_text("path,label\nx/a.mp4,run\n")
        with pytest.raises(MissingFileError, match=r"lists 1 videos, and none exists.*--root"):
            read_source(tmp_path / "l.csv", root=clips / "wave")

    def test_files_that_are_no_list(self, clips: Path, tmp_path: Path) -> None:
        """A video, an archive and parquet with the videos in it are named as what they are."""
        with pytest.raises(DatasetError, match=r"a\.mp4: expected a folder.*found a video"):
            read_source(clips / "run/a.mp4")
        (tmp_path / "clips.zip").write_bytes(b"zip")
        with pytest.raises(DatasetError, match=r"clips\.zip: .*found an archive: extract it"):
            read_source(tmp_path / "clips.zip")
        rows = [{"video": {"bytes": b"video", "path": "a.mp4"}, "label": 1}]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
        with pytest.raises(DatasetError, match=r"holds the videos themselves, in the column video"):
            read_source(tmp_path / "data.parquet")
        (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
        with pytest.raises(DatasetError, match=r"bad\.parquet: cannot be read as parquet"):
            read_source(tmp_path / "bad.parquet")
