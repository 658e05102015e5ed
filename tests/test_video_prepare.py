"""Preparing: what is found, made, kept, missing and broken; and the index of it."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from i3dzoo.errors import DatasetError, MissingFileError, OutputError
from i3dzoo.metadata import Input
from i3dzoo.video import VideoDataset, index, probe, read, read_index
from i3dzoo.video import prepare as prepare_module
from i3dzoo.video.extract import Settings
from i3dzoo.video.generate import CLIPS_FOLDER, LISTS_FOLDER, generate
from i3dzoo.video.index import scan_folders
from i3dzoo.video.prepare import Prepared, prepare

from .test_cli import run
from .video_data import SHAPE, small_lists, small_prepared

SMALL = Settings("tao", None, 32, "farneback")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated clips of three classes, with their lists."""
    folder = tmp_path_factory.mktemp("source")
    generate(folder, small_lists(), SHAPE)
    return folder


class TestVideos:
    def test_index(self, tmp_path: Path, source: Path) -> None:
        """Every clip is in the index as `probe` finds it, with class and roles; none is missing."""
        prepared = prepare("hmdb51", source, tmp_path / "out")
        assert prepared.missing == prepared.bad == prepared.damaged == ()
        assert (prepared.made, prepared.kept) == (12, 0)
        found = read_index(prepared.path)
        assert found == prepared.index
        assert len(found.select(1, "train")) == 6
        assert len(found.select(3, "test")) == 3
        for entry in found.entries:
            truth, info = probe(tmp_path / "out" / entry.file), found.info(entry)
            for field in ("path", "frames", "height", "width", "fps", "warnings", "keyframes"):
                assert getattr(info, field) == getattr(truth, field)
            np.testing.assert_allclose(info.times, truth.times)
        assert not (tmp_path / "out" / "missing.txt").exists()

    def test_files_are_linked(self, tmp_path: Path, source: Path) -> None:
        """On the same file system the clips take no room twice."""
        prepare("hmdb51", source, tmp_path / "out")
        name = Path("wave", "wave_clip_0.avi")
        assert (tmp_path / "out" / "videos" / name).samefile(source / CLIPS_FOLDER / name)

    def test_goes_on_where_it_stopped(
        self, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a killed run has done is kept, and a line that it cut short does no harm."""
        real, seen = prepare_module.extract_clip, []

        def killed(job: prepare_module.Job) -> index.Entry:
            if len(seen) == 5:
                raise KeyboardInterrupt
            seen.append(job.name)
            return real(job)

        monkeypatch.setattr(prepare_module, "extract_clip", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare("hmdb51", source, tmp_path / "out")
        assert not (tmp_path / "out" / "index.jsonl").exists()
        monkeypatch.setattr(prepare_module, "extract_clip", real)
        with (tmp_path / "out" / ".journal.jsonl").open("a") as journal:
            journal.write('["wave_clip_0.avi", "{\\"file\\": \\"vid')
        prepared = prepare("hmdb51", source, tmp_path / "out")
        assert (prepared.made, prepared.kept) == (7, 5)
        again = prepare("hmdb51", source, tmp_path / "out")
        assert (again.made, again.kept) == (0, 12)
        assert again.index == prepared.index

    def test_missing_clips_are_named(self, tmp_path: Path, source: Path) -> None:
        """What is not there is listed; once it is there, the next run completes the dataset."""
        shutil.copytree(source, tmp_path / "source")
        clip = tmp_path / "source" / CLIPS_FOLDER / "wave" / "wave_clip_2.avi"
        clip.rename(tmp_path / "elsewhere.avi")
        prepared = prepare("hmdb51", tmp_path / "source", tmp_path / "out")
        assert [missing.file for missing in prepared.missing] == ["wave_clip_2.avi"]
        assert (tmp_path / "out" / "missing.txt").read_text() == "wave/wave_clip_2.avi\n"
        (tmp_path / "elsewhere.avi").rename(clip)
        prepared = prepare("hmdb51", tmp_path / "source", tmp_path / "out")
        assert (prepared.made, len(prepared.index.entries), prepared.missing) == (1, 12, ())
        assert not (tmp_path / "out" / "missing.txt").exists()

    def test_missing_names_that_are_not_ascii(self, tmp_path: Path, source: Path) -> None:
        """Whatever a clip that is missing is called, the list of them names it, in UTF-8."""
        shutil.copytree(source, tmp_path / "source")
        for path in (tmp_path / "source" / LISTS_FOLDER).glob("wave_*"):
            path.write_text(path.read_text("utf-8") + "żółw.avi 1\n", "utf-8")
        prepared = prepare("hmdb51", tmp_path / "source", tmp_path / "out")
        assert [missing.file for missing in prepared.missing] == ["żółw.avi"]
        assert (tmp_path / "out" / "missing.txt").read_text("utf-8") == "wave/żółw.avi\n"

    def test_broken_clips_are_named(self, tmp_path: Path, source: Path) -> None:
        """No video is an entry with an error, a cut one has a warning; a repaired one comes in."""
        shutil.copytree(source, tmp_path / "source")
        folder = tmp_path / "source" / CLIPS_FOLDER / "wave"
        whole = (folder / "wave_clip_0.avi").read_bytes()
        (folder / "wave_clip_0.avi").write_bytes(b"no video" * 100)
        cut = (folder / "wave_clip_1.avi").read_bytes()
        (folder / "wave_clip_1.avi").write_bytes(cut[: len(cut) * 2 // 3])
        prepared = prepare("hmdb51", tmp_path / "source", tmp_path / "out")
        assert [Path(entry.file).name for entry in prepared.bad] == ["wave_clip_0.avi"]
        assert str(prepared.bad[0].error).startswith("is no video that FFmpeg can read")
        assert [Path(entry.file).name for entry in prepared.damaged] == ["wave_clip_1.avi"]
        assert "the file ends early" in prepared.damaged[0].warnings[0]
        (folder / "wave_clip_0.avi").write_bytes(whole)
        assert prepare("hmdb51", tmp_path / "source", tmp_path / "out").bad == ()

    def test_nothing_there(self, tmp_path: Path, source: Path) -> None:
        """No clip, no lists, no source: each says what is expected."""
        (tmp_path / "empty").mkdir()
        with pytest.raises(MissingFileError, match="none of the 12 clips of the lists, such as"):
            prepare("hmdb51", tmp_path / "empty", tmp_path / "out", splits=source / LISTS_FOLDER)
        with pytest.raises(MissingFileError, match=r"split lists are not there .* pass --splits"):
            prepare("hmdb51", tmp_path / "empty", tmp_path / "out2")
        with pytest.raises(MissingFileError, match="gone: no such file or folder"):
            prepare("hmdb51", tmp_path / "gone", tmp_path / "out3")

    def test_another_way(self, tmp_path: Path, source: Path) -> None:
        """A folder that was prepared in another way is not mixed up."""
        prepare("hmdb51", source, tmp_path / "out")
        with pytest.raises(DatasetError, match="prepared as 'hmdb51, layout videos'"):
            prepare("hmdb51", source, tmp_path / "out", Settings("frames"))

    def test_output_is_a_file(self, tmp_path: Path, source: Path) -> None:
        """A file where the folder should be is an error in words."""
        (tmp_path / "out").write_text("mine")
        with pytest.raises(OutputError, match="out: cannot be written"):
            prepare("hmdb51", source, tmp_path / "out")

    def test_ucf101(self, tmp_path: Path, source: Path) -> None:
        """UCF101's lists and folders work the same way, names in another case included."""
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
        """rgb/ has every frame, u/ and v/ one image fewer, all of short side 32, named alike."""
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
        """split1/test/<class>/<clip> leads to the clip; unused ones are in neither half."""
        root = tao.index.root
        link = root / "split1" / "test" / "wave" / "wave_clip_1"
        assert link.is_symlink()
        assert not os.path.isabs(os.readlink(link))  # noqa: PTH115, PTH117 - the text itself
        assert (link / "rgb" / "000001.jpg").is_file()
        assert not (root / "split1" / "train").exists()

    def test_frames_are_those_of_the_video(self, tao: Prepared) -> None:
        """JPEGs differ from the resized frames of the clip by little."""
        entry = tao.index.entries[0]
        source = tao.index.root.parent / "source" / CLIPS_FOLDER / entry.label
        video = source / f"{Path(entry.file).name}.avi"
        spec = Input(resize=32, crop=32, frames=entry.frames, fps=None)
        single = dataclasses.replace(
            index.describe(probe(video), video.name, entry.label, (None,) * 3, 1)
        )
        decoded = index.Index(source, "x", "videos", (entry.label,), (single,))
        truth = VideoDataset(decoded, spec)[0].views
        found = VideoDataset(tao.index, spec)[0].views
        assert truth is not None
        assert found is not None
        assert (truth.float() - found.float()).abs().mean() < 3

    def test_a_folder_without_an_index(self, tao: Prepared) -> None:
        """TAO's folders of others, which have no index, are read too."""
        found = scan_folders(tao.index.root / "tao")
        assert found.classes == ("brush_hair", "cartwheel", "wave")
        assert [e.frames for e in found.entries] == [e.frames for e in tao.index.entries]
        assert [e.flow and e.flow.frames for e in found.entries] == [
            e.frames - 1 for e in tao.index.entries
        ]

    def test_rate_and_size(self, tmp_path: Path) -> None:
        """At 10 fps a third of the frames of 30 fps are left; the rate is in the index."""
        settings = Settings("frames", 10.0, None)
        prepared = small_prepared(tmp_path, settings, per_class=1)
        for entry in prepared.index.entries:
            name = f"{Path(entry.file).name}.avi"
            video = tmp_path / "source" / CLIPS_FOLDER / entry.label / name
            assert entry.frames == probe(video).frames // 3
            assert (entry.fps, entry.height, entry.width) == (10.0, 48, 64)
        assert read_index(prepared.path).fps == 10.0

    def test_flow_beside_videos_later(self, tmp_path: Path) -> None:
        """Flow can be added to prepared videos; arrays hold what the engine computes, quantised."""
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
        with pytest.raises(DatasetError, match="a flow prepared as 'farneback, short side 32"):
            prepare("hmdb51", tmp_path / "source", tmp_path / "out", other)


class TestIndex:
    def write(self, folder: Path, **fields: object) -> Path:
        """Write an index of one entry."""
        header = {"format": "i3dzoo-index", "version": 1, "dataset": "x", "layout": "videos"}
        header |= {"classes": ["wave"], "fps": None, "short_side": None, "flow": None}
        entry = {"file": "a.avi", "label": "wave", "frames": 3, "height": 8, "width": 8, **fields}
        path = folder / "index.jsonl"
        path.write_text(json.dumps(header) + "\n" + json.dumps(entry) + "\n")
        return path

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"file": "../a.avi"}, r"line 2: is malformed: '\.\./a\.avi' leads out of the dataset"),
            ({"file": "/a.avi"}, "leads out of the dataset"),
            ({"file": "C:/a.avi"}, "leads out of the dataset"),
            ({"frames": 0}, "has no frames, no size or no sound frame rate"),
            ({"fps": float("nan")}, "no sound frame rate"),
            ({"times": [0.0]}, "has 3 frames and 1 times"),
            ({"roles": ["train", "dev", None]}, "the roles of 'a.avi' are"),
            ({"colour": 1}, "unexpected keyword argument 'colour'"),
            ({"label": "walk"}, "its class 'walk' is not among the 1 classes"),
        ],
    )
    def test_malformed(self, tmp_path: Path, fields: dict[str, object], message: str) -> None:
        """An entry that cannot be true is refused with its line."""
        with pytest.raises(DatasetError, match=message):
            read_index(self.write(tmp_path, **fields))

    def test_neither_text_nor_clips(self, tmp_path: Path) -> None:
        """Bytes that are no text, and an index without a clip, are errors."""
        path = self.write(tmp_path)
        heading, _, _ = path.read_text().partition("\n")
        path.write_text(heading + "\n")
        with pytest.raises(DatasetError, match="the index lists no clip"):
            read_index(path).select(None, None)
        path.write_bytes(b"\xff" + path.read_bytes())
        with pytest.raises(DatasetError, match=r"index\.jsonl: cannot be read as an index"):
            read_index(path)

    def test_newer_version(self, tmp_path: Path) -> None:
        """An index of another version says so."""
        path = self.write(tmp_path)
        path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
        with pytest.raises(DatasetError, match=r"version 2; this i3dzoo reads .* of version 1"):
            read_index(tmp_path)

    def test_neither_index_nor_folders(self, tmp_path: Path) -> None:
        """An empty folder says what is expected, and a missing one too."""
        with pytest.raises(DatasetError, match=r"holds neither index\.jsonl nor folders"):
            read_index(tmp_path)
        with pytest.raises(MissingFileError, match="no such index; i3dzoo prepare makes one"):
            read_index(tmp_path / "gone")

    def test_no_such_split(self, tmp_path: Path) -> None:
        """A split that does not exist, or is empty, is an error."""
        found = read_index(self.write(tmp_path))
        with pytest.raises(DatasetError, match="expected split 1, 2 or 3"):
            found.select(4, "train")
        with pytest.raises(DatasetError, match="no clip is in the train half of split 1"):
            found.select(1, "train")

    def test_uneven_times_are_kept(self, tmp_path: Path) -> None:
        """A variable frame rate survives the index."""
        found = read_index(self.write(tmp_path, fps=2.0, times=[0.0, 0.1, 1.0]))
        times = found.info(found.entries[0]).times
        assert times is not None
        assert times.tolist() == [0.0, 0.1, 1.0]


class TestCommand:
    @pytest.mark.skipif(os.name != "posix", reason="sends signals as terminals do")
    def test_interrupted(self, tmp_path: Path) -> None:
        """Ctrl-C ends all processes at once, and without tracebacks."""
        command = ["prepare", "generated", "made", "--size", "32x32", "--frames", "4"]
        with subprocess.Popen(
            [sys.executable, "-m", "i3dzoo", *command, "--jobs", "2"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            deadline = time.monotonic() + 60
            while not list(tmp_path.rglob("*.avi")) and time.monotonic() < deadline:
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (1, "")
        assert "Aborted!" in err
        assert "Traceback" not in err
        assert 0 < len(list(tmp_path.rglob("[!.]*.avi"))) < 510

    def test_generate_then_prepare(self, tmp_path: Path) -> None:
        """The two commands in a row: the path is the last line, the JSON is one document."""
        lists = tmp_path / "lists"
        generate(tmp_path / "made", small_lists(2), SHAPE)
        (tmp_path / "made" / LISTS_FOLDER).rename(lists)
        out = run(
            "prepare", "generated", "motions", "--splits", lists, "--per-class", "all",
            "--size", "32x32", "--frames", "4", "--jobs", "1", cwd=tmp_path,
        )  # fmt: skip
        assert (out.returncode, out.stdout) == (0, "motions\n"), out.stderr
        out = run("prepare", "hmdb51", "motions", "out", "--jobs", "1", cwd=tmp_path)
        assert (out.returncode, out.stdout) == (0, "out/index.jsonl\n"), out.stderr
        assert "HMDB51: 3 classes, 6 clips, 6 prepared now, 0 before" in out.stderr
        assert "The lists are not the official ones: 3 classes, HMDB51 has 51" in out.stderr
        assert "\nNext: i3dzoo finetune hmdb51 --data out --from rgb_imagenet\n" in out.stderr
        (tmp_path / "motions" / CLIPS_FOLDER / "wave" / "wave_clip_1.avi").unlink()
        out = run("prepare", "hmdb51", "motions", "new", "--jobs", "1", "--json", cwd=tmp_path)
        assert out.returncode == 1
        document = json.loads(out.stdout)
        assert document["missing"] == ["wave/wave_clip_1.avi"]
        assert document["splits"][0] == {"train": 0, "test": 2}
        assert "1 clip is missing, named in new/missing.txt" in out.stderr
