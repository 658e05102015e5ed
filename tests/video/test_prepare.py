"""Preparing datasets: new, kept, missing and broken clips, and the index."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from helpers.cli import call
from helpers.disk import full_disk
from helpers.video_data import SHAPE, small_lists, small_prepared

from i3dzoo.checkpoints.metadata import Input
from i3dzoo.errors import DatasetError, MissingFileError, OutputError
from i3dzoo.video import VideoDataset, index, probe, read, read_index
from i3dzoo.video import prepare as prepare_module
from i3dzoo.video.extract import Settings
from i3dzoo.video.flow import FlowMethod
from i3dzoo.video.generate import CLIPS_FOLDER, LISTS_FOLDER, generate
from i3dzoo.video.index import Layout
from i3dzoo.video.index_file import scan_folders
from i3dzoo.video.prepare import Prepared, prepare

SMALL = Settings("tao", None, 32, "farneback")


@pytest.fixture
def copied(source: Path, tmp_path: Path) -> Path:
    """A copy of the source, whose clips and lists a test may change."""
    return shutil.copytree(source, tmp_path / "source")


class TestVideos:
    def test_index(self, tmp_path: Path, source: Path) -> None:
        """Every clip is linked, and in the index with the result of `probe`, class and roles."""
        prepared = prepare("hmdb51", source, tmp_path / "out")
        assert prepared.missing == prepared.bad == prepared.damaged == ()
        assert (prepared.made, prepared.kept) == (12, 0)
        index = read_index(prepared.path)
        assert index == prepared.index
        assert len(index.select(1, "train")) == 6
        assert len(index.select(3, "test")) == 3
        for entry in index.entries:
            truth, info = probe(tmp_path / "out" / entry.file), index.info(entry)
            for field in ("path", "frames", "height", "width", "fps", "warnings", "keyframes"):
                assert getattr(info, field) == getattr(truth, field)
            np.testing.assert_allclose(info.times, truth.times)
            clip = source / CLIPS_FOLDER / Path(entry.file).relative_to("videos")
            assert truth.path.samefile(clip)  # a hard link on the same file system
        assert not (tmp_path / "out" / "missing.txt").exists()

    def test_goes_on_where_it_stopped(
        self, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Clips of a killed run are kept, and its incomplete last line does no harm."""
        real, seen = prepare_module.prepare_video, []

        def killed(job: prepare_module.ClipJob) -> index.Entry:
            if len(seen) == 5:
                raise KeyboardInterrupt
            seen.append(job.name)
            return real(job)

        monkeypatch.setattr(prepare_module, "prepare_video", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare("hmdb51", source, tmp_path / "out")
        assert not (tmp_path / "out" / "index.jsonl").exists()
        monkeypatch.setattr(prepare_module, "prepare_video", real)
        with (tmp_path / "out" / ".journal.jsonl").open("a") as journal:
            journal.write('{"kind": "clip", "name": "wave_clip_0.avi", "entry": {"file": "vid')
        prepared = prepare("hmdb51", source, tmp_path / "out")
        assert (prepared.made, prepared.kept) == (7, 5)
        again = prepare("hmdb51", source, tmp_path / "out")
        assert (again.made, again.kept) == (0, 12)
        assert again.index == prepared.index

    def test_missing_clips_are_named(self, tmp_path: Path, copied: Path) -> None:
        """Missing clips are listed, and the next run adds them once they exist."""
        clip = copied / CLIPS_FOLDER / "wave" / "wave_clip_2.avi"
        clip.rename(tmp_path / "elsewhere.avi")
        prepared = prepare("hmdb51", copied, tmp_path / "out")
        assert [missing.file for missing in prepared.missing] == ["wave_clip_2.avi"]
        assert (tmp_path / "out" / "missing.txt").read_text() == "wave/wave_clip_2.avi\n"
        (tmp_path / "elsewhere.avi").rename(clip)
        prepared = prepare("hmdb51", copied, tmp_path / "out")
        assert (prepared.made, len(prepared.index.entries), prepared.missing) == (1, 12, ())
        assert not (tmp_path / "out" / "missing.txt").exists()

    def test_missing_names_that_are_not_ascii(self, tmp_path: Path, copied: Path) -> None:
        """missing.txt names clips in UTF-8."""
        for path in (copied / LISTS_FOLDER).glob("wave_*"):
            path.write_text(path.read_text("utf-8") + "żółw.avi 1\n", "utf-8")
        prepared = prepare("hmdb51", copied, tmp_path / "out")
        assert [missing.file for missing in prepared.missing] == ["żółw.avi"]
        assert (tmp_path / "out" / "missing.txt").read_text("utf-8") == "wave/żółw.avi\n"

    def test_broken_clips_are_named(self, tmp_path: Path, copied: Path) -> None:
        """Broken clips have an error, truncated ones a warning; repaired clips come in again."""
        broken, cut = (copied / CLIPS_FOLDER / "wave" / f"wave_clip_{n}.avi" for n in (0, 1))
        whole = broken.read_bytes()
        broken.write_bytes(b"no video" * 100)
        cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 2 // 3])
        prepared = prepare("hmdb51", copied, tmp_path / "out")
        assert [Path(entry.file).name for entry in prepared.bad] == ["wave_clip_0.avi"]
        assert str(prepared.bad[0].error).startswith("is not a video that FFmpeg can read")
        assert [Path(entry.file).name for entry in prepared.damaged] == ["wave_clip_1.avi"]
        assert "the file is truncated" in prepared.damaged[0].warnings[0]
        broken.write_bytes(whole)
        assert prepare("hmdb51", copied, tmp_path / "out").bad == ()

    def test_nothing_there(self, tmp_path: Path, source: Path) -> None:
        """Missing clips, lists or sources are errors that say what is expected."""
        empty, out, lists = tmp_path / "empty", tmp_path / "out", source / LISTS_FOLDER
        empty.mkdir()
        with pytest.raises(MissingFileError, match="none of the 12 clips of the lists, such as"):
            prepare("hmdb51", empty, out, splits=lists)
        with pytest.raises(MissingFileError, match=r"no official split lists .* --splits"):
            prepare("hmdb51", empty, out)
        with pytest.raises(MissingFileError, match="gone: no such file or folder"):
            prepare("hmdb51", tmp_path / "gone", out)

    def test_another_way(self, tmp_path: Path, source: Path) -> None:
        """A folder that was prepared with other settings is refused."""
        prepare("hmdb51", source, tmp_path / "out")
        with pytest.raises(DatasetError, match="prepared with layout videos; expected frames"):
            prepare("hmdb51", source, tmp_path / "out", Settings("frames"))

    def test_output_is_a_file(self, tmp_path: Path, source: Path) -> None:
        """A file in place of the output folder is an error."""
        (tmp_path / "out").write_text("mine")
        with pytest.raises(OutputError, match="out: cannot be written"):
            prepare("hmdb51", source, tmp_path / "out")

    def test_suffixes_and_unicode(self, tmp_path: Path, source: Path) -> None:
        """A clip may be an array, and the lists of macOS name the same files and classes."""
        clip = source / CLIPS_FOLDER / "wave" / "wave_clip_0.avi"
        folder = tmp_path / "in" / normalize("NFD", "caf\u00e9")
        folder.mkdir(parents=True)
        np.save(folder / "a.npy", read(clip).frames)
        shutil.copy(clip, folder / normalize("NFD", "\u00e9.GIF"))  # by its content, an AVI file
        for split in (1, 2, 3):
            lists = tmp_path / "in" / normalize("NFD", f"caf\u00e9_test_split{split}.txt")
            lists.write_text(
                "a.npy 1\n" + normalize("NFC" if split == 1 else "NFD", "\u00e9.gif 2\n")
            )
        prepared = prepare("hmdb51", tmp_path / "in", tmp_path / "out")
        assert (prepared.missing, prepared.bad) == ((), ())
        assert prepared.index.classes == ("caf\u00e9",)
        array, video = prepared.index.entries
        np.testing.assert_array_equal(
            read(prepared.index.info(array)).frames, read(prepared.index.info(video)).frames
        )
        classes = (normalize("NFD", "caf\u00e9"), "x")  # as a checkpoint may name them
        spec = Input(resize=32, crop=32, frames=4, fps=None)
        assert VideoDataset(prepared.index, spec, classes=classes).labels == (0, 0)

    def test_ucf101(self, tmp_path: Path, source: Path) -> None:
        """UCF101 works the same way, also with file names in another case."""
        lists = tmp_path / "ucfTrainTestlist"
        lists.mkdir()
        (lists / "classInd.txt").write_text("1 wave\n2 cartwheel\n")
        for split in (1, 2, 3):
            (lists / f"trainlist0{split}.txt").write_text("wave/Wave_clip_0.avi 1\n")
            (lists / f"testlist0{split}.txt").write_text("cartwheel/cartwheel_clip_1.avi\n")
        prepared = prepare("ucf101", source, tmp_path / "out", splits=lists)
        assert prepared.index.classes == ("wave", "cartwheel")
        assert [entry.file for entry in prepared.index.entries] == [
            "videos/wave/Wave_clip_0.avi",
            "videos/cartwheel/cartwheel_clip_1.avi",
        ]
        assert prepared.missing == ()


@pytest.fixture(scope="module")
def tao(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """TAO's layout with flow, of two clips a class."""
    pytest.importorskip("cv2")
    return small_prepared(tmp_path_factory.mktemp("tao"), SMALL, per_class=2)


class TestFrames:
    def test_tao_layout(self, tao: Prepared) -> None:
        """rgb/ has every frame, u/ and v/ have one image less, with the same names and sizes."""
        root = tao.index.root
        for entry in tao.index.entries:
            folder = root / entry.file
            names = {s: sorted(p.name for p in (folder / s).iterdir()) for s in ("rgb", "u", "v")}
            assert names["rgb"][0] == "000001.jpg"
            assert len(names["rgb"]) == entry.frames
            assert names["u"] == names["v"] == names["rgb"][:-1]
            assert (entry.height, entry.width) == (32, 43)
            assert read(folder, [0]).frames.shape == (1, 32, 43, 3)
            assert read(folder, [0], "xy").frames.shape == (1, 32, 43, 2)

    def test_splits_are_folders_of_links(self, tao: Prepared) -> None:
        """split1/test/<class>/<clip> links to the clip; unused clips are in neither half."""
        root = tao.index.root
        link = root / "split1" / "test" / "wave" / "wave_clip_1"
        assert link.is_symlink()
        assert not os.path.isabs(os.readlink(link))  # noqa: PTH115, PTH117 - the text itself
        assert (link / "rgb" / "000001.jpg").is_file()
        assert not (root / "split1" / "train").exists()

    def test_frames_are_those_of_the_video(self, tao: Prepared) -> None:
        """The JPEGs are close to the resized frames of the clip."""
        entry = tao.index.entries[0]
        source = tao.index.root.parent / "source" / CLIPS_FOLDER / entry.label
        video = source / f"{Path(entry.file).name}.avi"
        spec = Input(resize=32, crop=32, frames=entry.frames, fps=None)
        single = index.make_entry(probe(video), video.name, entry.label, (None,) * 3, 1)
        decoded = index.Index(source, "x", "videos", (entry.label,), (single,))
        truth = VideoDataset(decoded, spec)[0].views["rgb"]
        extracted = VideoDataset(tao.index, spec)[0].views["rgb"]
        assert (truth.float() - extracted.float()).abs().mean() < 3

    def test_a_folder_without_an_index(self, tao: Prepared) -> None:
        """Folders in TAO's layout without an index can be read."""
        scanned = scan_folders(tao.index.root / "tao")
        assert scanned.classes == ("brush_hair", "cartwheel", "wave")
        assert [e.frames for e in scanned.entries] == [e.frames for e in tao.index.entries]
        assert [e.flow and e.flow.frames for e in scanned.entries] == [
            e.frames - 1 for e in tao.index.entries
        ]

    @pytest.mark.parametrize("jobs", [1, 2])
    def test_a_full_disk(self, tmp_path: Path, copied: Path, jobs: int) -> None:
        """A frame that cannot be written is one sentence, in a worker too."""
        with full_disk(2000), pytest.raises(OutputError, match="cannot be written: it is large"):
            prepare("hmdb51", copied, tmp_path / "out", Settings("frames"), jobs=jobs)

    def test_rate_and_size(self, tmp_path: Path) -> None:
        """At 10 fps a third of 30 fps remains, and the rate is in the index."""
        settings = Settings("frames", 10.0, None)
        prepared = small_prepared(tmp_path, settings, per_class=1)
        for entry in prepared.index.entries:
            name = f"{Path(entry.file).name}.avi"
            video = tmp_path / "source" / CLIPS_FOLDER / entry.label / name
            assert entry.frames == probe(video).frames // 3
            assert (entry.fps, entry.height, entry.width) == (10.0, 48, 64)
        assert read_index(prepared.path).fps == 10.0

    @pytest.mark.parametrize("layout", ["frames", "videos"])
    def test_two_clips_of_one_stem(self, tmp_path: Path, source: Path, layout: Layout) -> None:
        """x.mp4 (train) and x.avi (test) have folders of their own, with their own frames."""
        clips = [source / CLIPS_FOLDER / "wave" / f"wave_clip_{number}.avi" for number in (0, 1)]
        (tmp_path / "in").mkdir()
        for name, clip in zip(("x.mp4", "x.avi", "y.avi"), (*clips, clips[0]), strict=True):
            shutil.copy(clip, tmp_path / "in" / name)
        for split in (1, 2, 3):
            lists = tmp_path / "in" / f"wave_test_split{split}.txt"
            lists.write_text("x.mp4 1\nx.avi 2\ny.avi 1\n")
        flow: FlowMethod | None = "torch" if layout == "videos" else None
        settings = Settings(layout, None, 16, flow)
        index = prepare("hmdb51", tmp_path / "in", tmp_path / "out", settings).index
        entries = {Path(entry.file).name: entry for entry in index.entries}
        if layout == "videos":
            folders = [entry.flow.file for entry in index.entries if entry.flow]
            assert folders == ["flow/wave/x.avi", "flow/wave/x.mp4", "flow/wave/y"]
            return
        assert list(entries) == ["x.avi", "x.mp4", "y"]
        for name, clip in (("x.mp4", clips[0]), ("x.avi", clips[1]), ("y", clips[0])):
            frames = read(index.info(entries[name])).frames
            assert len(frames) == probe(clip).frames
            assert len(frames) == entries[name].frames

    def test_flow_beside_videos_later(self, tmp_path: Path) -> None:
        """Flow can be added to prepared videos, as quantised arrays."""
        pytest.importorskip("cv2")
        small_prepared(tmp_path, per_class=1)
        shutil.rmtree(tmp_path / "source" / CLIPS_FOLDER)
        settings = Settings("videos", None, 32, "farneback", "npy")
        prepared = prepare("hmdb51", tmp_path / "source", tmp_path / "out", settings)
        assert (prepared.made, prepared.missing) == (3, ())
        entry = prepared.index.entries[0]
        assert entry.flow is not None
        assert entry.flow.frames == entry.frames - 1
        info = prepared.index.info(entry, "xy")
        assert read(info).frames.shape == (entry.frames - 1, 32, 43, 2)
        again = prepare("hmdb51", tmp_path / "source", tmp_path / "out")
        assert (again.made, again.index) == (0, prepared.index)
        other = dataclasses.replace(settings, flow="tvl1")
        with pytest.raises(DatasetError, match="prepared with method farneback; expected tvl1"):
            prepare("hmdb51", tmp_path / "source", tmp_path / "out", other)


class TestCommand:
    def test_generate_then_prepare(self, tmp_path: Path) -> None:
        """The path is the last line of standard output, and the JSON is one document."""
        lists = tmp_path / "lists"
        generate(tmp_path / "made", small_lists(2), SHAPE)
        (tmp_path / "made" / LISTS_FOLDER).rename(lists)
        out = call(
            "prepare", "generated", "motions", "--splits", lists, "--per-class", "all",
            "--size", "32x32", "--frames", "4", "--jobs", "1", cwd=tmp_path,
        )  # fmt: skip
        assert (out.returncode, out.stdout) == (0, "motions\n"), out.stderr
        out = call("prepare", "hmdb51", "motions", "out", "--jobs", "1", cwd=tmp_path)
        assert (out.returncode, out.stdout) == (0, "out/index.jsonl\n"), out.stderr
        assert "HMDB51: 3 classes, 6 clips, 6 new, 0 from before" in out.stderr
        assert "official ones: 3 classes, HMDB51 has 51" in out.stderr
        assert "\nNext: i3dzoo finetune hmdb51 --data out --from rgb_imagenet\n" in out.stderr
        (tmp_path / "motions" / CLIPS_FOLDER / "wave" / "wave_clip_1.avi").unlink()
        out = call(
            "prepare", "hmdb51", "motions", "new", "--jobs", "1", "--json", cwd=tmp_path, code=1
        )
        document = json.loads(out.stdout)
        assert document["missing"] == ["wave/wave_clip_1.avi"]
        assert document["splits"][0] == {"train": 0, "test": 2}
        assert "1 clip is missing, listed in new/missing.txt" in out.stderr
