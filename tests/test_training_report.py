"""The report of a run: complete, self-contained, and safe with whatever names there are."""

import base64
import hashlib
import importlib.util
import json
import xml.etree.ElementTree as ElementTree
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from i3dzoo.cli import main
from i3dzoo.errors import (
    FormatError,
    MissingFileError,
    OutputError,
    ShapeError,
    TrainingError,
    VideoError,
)
from i3dzoo.training.charts import Series, heat_map, line_chart, smooth, thin
from i3dzoo.training.markup import join, tag
from i3dzoo.training.predictions import Prediction, PredictionWriter, Run
from i3dzoo.training.recipe import load_recipe
from i3dzoo.training.report import read_folder, worst_clips, write_report
from i3dzoo.training.report_plots import plot_confusion, plot_curves
from i3dzoo.training.run_files import read_history, read_run
from i3dzoo.training.thumbnails import film_strip

from .video_files import numbered, write_video

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;"
LABELS = ["run", "wave", EVIL]


class Page(HTMLParser):
    """What a browser would make of a page: elements, their attributes, their text."""

    VOID = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Make sure that elements close in the order they open."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note a text."""
        (self.scripts if self.open[-1:] == ["script"] else self.texts).append(data)

    @property
    def text(self) -> str:
        """All texts together."""
        return " ".join(self.texts)


def run_document(**more: Any) -> dict[str, Any]:
    """A run.json."""
    return {
        "command": ["i3dzoo", "finetune", "hmdb51", "--data", "my data"],
        "recipe": load_recipe("smoke").to_dict(),
        "labels": LABELS,
        "environment": {"python": "3.11", EVIL: EVIL},
        "started": "2026-01-01T00:00:00+00:00",
        "source": {"model": "rgb_scratch", "dataset": EVIL},
        "result": "best.safetensors",
        **more,
    }


def make_run(folder: Path, videos: int = 30, **more: Any) -> Path:
    """A run's folder: 60 steps, 3 epochs, predictions of as many videos."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(run_document(**more)))
    lines = []
    for step in range(1, 61):
        entry = {"kind": "step", "step": step, "epoch": step / 20, "loss": 2 / step, "lr": 0.01}
        lines.append({**entry, "top1": step / 60, "clips_per_second": 8.5, "data_wait": 0.02})
        if step % 20 == 0:
            numbers = {"val_loss": 1.25, "top1": 0.5 + step / 600, "top5": 1.0, "mean_class": 0.4}
            lines.append({"kind": "epoch", "epoch": step // 20, **numbers})
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    random = np.random.default_rng(0)
    with PredictionWriter(folder / "predictions.jsonl", Run("a" * 64, "center", "1")) as writer:
        for at in range(videos):
            logits = random.normal(size=3).astype("f4")
            writer.write(Prediction(f"{EVIL}/{at}.mov", at % 2, logits))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    return make_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    """The report of that run."""
    return Page(write_report(folder).read_text("utf-8"))


class TestPage:
    def test_needs_no_network_and_runs_only_its_own_script(self, page: Page) -> None:
        """Nothing is loaded, and the policy lets no script run but the one that is there."""
        for name, attributes in page.elements:
            assert not {"href", "srcset", "data", "action"} & set(attributes)
            assert (attributes.get("src") or "data:").startswith("data:"), name
        assert Counter(name for name, _ in page.elements)["script"] == 1
        (script,) = page.scripts
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policies = [a["content"] for _, a in page.elements if "http-equiv" in a]
        others = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        assert policies == [f"{others}; script-src 'sha256-{digest}'"]
        for word in ("http://", "https://", "@import", "url("):
            assert word not in " ".join(page.texts)

    def test_names_cannot_inject(self, page: Page) -> None:
        """Class names, file names and values that are HTML are shown, not obeyed."""
        assert not [name for _, a in page.elements for name in a if name.startswith("on")]
        assert all((a.get("src") or "").startswith("data:") for n, a in page.elements if n == "img")
        assert EVIL in page.text
        tips = [attributes.get("data-tip") or "" for _, attributes in page.elements]
        assert any(EVIL in tip for tip in tips)

    def test_shows_the_numbers(self, folder: Path, page: Page) -> None:
        """Accuracies, interval, confusion, recipe, environment and commands are all there."""
        metrics = read_folder(folder).metrics
        assert metrics is not None
        low, high = metrics.interval
        for text in (
            f"{metrics.top1:.1%}",
            f"95% interval {100 * low:.1f} to {100 * high:.1f}",
            f"{metrics.mean_class:.1%}",
            "30 videos",
            "after epoch 3",
            "60 steps, 3 epochs",
            "not finished",
            "2.0% waiting for data",
            "i3dzoo finetune hmdb51 --data 'my data'",
            f"i3dzoo evaluate {folder}/best.safetensors --data DIR --split 1 --protocol center",
            f"i3dzoo export {folder}/best.safetensors",
            f"i3dzoo report {folder}",
            "head_lr_scale",
            "no videos",
        ):
            assert text in page.text, text
        tips = [attributes.get("data-tip") or "" for _, attributes in page.elements]
        count = int(metrics.confusion[0, 1])
        assert f"run → wave\n{count} of 15 videos, {count / 15:.0%}" in tips
        assert f"epoch 3\ntraining  {(2 / 59 + 2 / 60) / 2:.4g}\nvalidation  1.25" in tips

    def test_says_why_there_are_no_frames(self, page: Page) -> None:
        """A video that is no longer there is listed with the reason."""
        assert page.text.count("No frames:") == 12
        assert "no such file or folder" in page.text

    def test_frames_of_the_worst_videos(self, tmp_path: Path) -> None:
        """Videos that are there are shown as JPEG pictures inside the page."""
        (tmp_path / "videos").mkdir()
        names = ["a.mov", "b.mov"]
        for name in names:
            write_video(tmp_path / "videos" / name, numbered(9))
        folder = make_run(tmp_path / "run", videos=0, data=str(tmp_path / "videos"))
        with PredictionWriter(folder / "predictions.jsonl", Run("a" * 64, "center", "1")) as writer:
            for name in names:
                writer.write(Prediction(name, 0, np.array([0, 5, 1], "f4")))
        page = Page(write_report(folder, tmp_path / "elsewhere.html").read_text())
        images = [attributes["src"] or "" for name, attributes in page.elements if name == "img"]
        assert len(images) == 2
        for image in images:
            data = base64.b64decode(image.removeprefix("data:image/jpeg;base64,"), validate=True)
            assert data.startswith(b"\xff\xd8")

    def test_odd_bytes_in_names(self, tmp_path: Path) -> None:
        """Names of files that are no UTF-8 are written escaped."""
        folder = make_run(tmp_path / "run", videos=0)
        with PredictionWriter(folder / "predictions.jsonl", Run("a" * 64, "center", "1")) as writer:
            writer.write(Prediction("wave/\udcff.avi", 0, np.array([0, 5, 1], "f4")))
        assert "wave/\\udcff.avi" in write_report(folder).read_text("utf-8")

    def test_before_the_first_evaluation(self, tmp_path: Path) -> None:
        """A run without predictions has its curves, and says so."""
        folder = make_run(tmp_path / "run")
        (folder / "predictions.jsonl").unlink()
        page = Page(write_report(folder).read_text())
        assert "The run has not been evaluated" in page.text
        assert "Predicted worst" not in page.text

    def test_before_the_first_step(self, tmp_path: Path) -> None:
        """A run that was killed before its first step has a report all the same."""
        folder = make_run(tmp_path / "run")
        (folder / "metrics.jsonl").write_text("")
        assert "Nothing was recorded." in Page(write_report(folder).read_text()).text

    def test_links_are_not_written_through(self, folder: Path, tmp_path: Path) -> None:
        """An output that is a link is refused."""
        (tmp_path / "link.html").symlink_to(tmp_path / "target")
        with pytest.raises(OutputError, match="is a symbolic link"):
            write_report(folder, tmp_path / "link.html")


def test_worst_clips_are_the_least_probable_first(folder: Path) -> None:
    """Only wrong videos are listed, those whose true class is least probable first."""
    predictions = read_folder(folder).predictions
    assert predictions is not None
    found = worst_clips(predictions, 100)
    wrong = predictions.logits.argmax(1) != predictions.labels
    assert len(found) == wrong.sum() > 3
    assert [clip.p_label for clip in found] == sorted(clip.p_label for clip in found)
    assert all(clip.p_predicted > clip.p_label for clip in found)
    assert found[:2] == worst_clips(predictions, 2)


class TestRunFiles:
    def test_steps_that_were_done_again_count_once(self, tmp_path: Path) -> None:
        """After a resume from an earlier step, the later record of a step is the one that holds."""
        steps = [(1, 5.0), (2, 4.0), (3, 3.0), (2, 4.5), (3, 3.5), (4, 2.5)]
        lines = [json.dumps({"kind": "step", "step": s, "loss": loss}) for s, loss in steps]
        (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"kind": "st')
        history = read_history(tmp_path)
        assert history.steps["step"].tolist() == [1, 2, 3, 4]
        assert history.steps["loss"].tolist() == [5, 4.5, 3.5, 2.5]
        assert np.isnan(history.steps["lr"]).all()

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{", "line 1 is no JSON"),
            ("[]", "line 1 is no JSON object"),
            ('{"kind": "step", "step": "a"}', "line 1: step is 'a'; expected a number"),
            ('{"kind": "epoch", "val_loss": 1}', "line 1: epoch is None; expected a number"),
            ('{"kind": "step", "step": 1, "loss": true}', "loss is True; expected a number"),
        ],
    )
    def test_damaged_metrics(self, tmp_path: Path, line: str, message: str) -> None:
        """A damaged line is named."""
        (tmp_path / "metrics.jsonl").write_text(f"{line}\n")
        with pytest.raises(FormatError, match=message):
            read_history(tmp_path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"labels": None}, "labels is None; expected a list of texts"),
            ({"labels": [1]}, r"labels is \[1\]; expected a list of texts"),
            ({"command": "i3dzoo"}, "command is 'i3dzoo'; expected a list of texts"),
            ({"recipe": []}, r"recipe is \[\]; expected an object"),
            ({"stream": "depth"}, "stream is 'depth'; expected 'rgb', 'flow' or 'joint'"),
            ({"started": 5}, "started is 5; expected a time"),
        ],
    )
    def test_wrong_run_json(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        """A key that is missing or of another type is named."""
        (tmp_path / "run.json").write_text(json.dumps(run_document(**change)))
        with pytest.raises(FormatError, match=message):
            read_run(tmp_path)

    def test_unknown_keys_are_kept(self, tmp_path: Path) -> None:
        """What a later version adds is shown, not dropped."""
        (tmp_path / "run.json").write_text(json.dumps(run_document(later=1)))
        assert read_run(tmp_path).more == {"later": 1}

    def test_not_a_run(self, tmp_path: Path) -> None:
        """A folder that is no run's says which file is missing."""
        with pytest.raises(MissingFileError, match=r"run\.json: there is no such file; name the f"):
            read_folder(tmp_path)

    def test_labels_that_do_not_fit(self, tmp_path: Path) -> None:
        """Predictions with another number of classes than labels are refused."""
        folder = make_run(tmp_path / "run", labels=["a", "b"])
        with pytest.raises(ShapeError, match=r"has 3 logits a video; expected 2, as run\.json"):
            read_folder(folder)

    def test_logits_that_are_not_finite(self, tmp_path: Path) -> None:
        """Predictions of a network that diverged are refused in words."""
        folder = make_run(tmp_path / "run", videos=1)
        with PredictionWriter(folder / "predictions.jsonl", Run("a" * 64, "center", "1")) as writer:
            writer.write(Prediction("b", 0, np.array([np.nan, 1, 2], "f4")))
        with pytest.raises(TrainingError, match="the logits of video 1 are not finite"):
            read_folder(folder)


def parse(markup: str) -> ElementTree.Element:
    """Parse a chart."""
    return ElementTree.fromstring(markup)  # noqa: S314 - our own output


class TestCharts:
    def test_svg_is_well_formed(self) -> None:
        """Charts are XML, and a line has as many points as were given."""
        x = np.arange(5.0)
        chart = line_chart("t", [Series("a", x, x**2, "c1"), Series("b", x, x, "c2", "dots")])
        root = parse(chart)
        paths = [element.get("d") or "" for element in root.iter("path")]
        assert [path.count("L") + path.count("M") for path in paths] == [5, 5]
        assert len(list(root.iter("circle"))) == 5
        matrix = parse(heat_map(np.array([[3, 1], [0, 2]]), ["a<b", "c&d"]))
        cells = [element.get("data-tip") for element in matrix.iter("g")]
        assert cells == [
            "a<b → a<b\n3 of 4 videos, 75%",
            "a<b → c&d\n1 of 4 videos, 25%",
            "c&d → c&d\n2 of 2 videos, 100%",
        ]

    def test_gaps_where_a_value_is_not_finite(self) -> None:
        """A NaN ends a line and another begins after it."""
        y = np.array([1.0, 2, np.nan, 3, np.inf, 4])
        root = parse(line_chart("t", [Series("a", np.arange(6.0), y, "c1")]))
        (path,) = (element.get("d") or "" for element in root.iter("path"))
        assert path.count("M") == 3

    @pytest.mark.parametrize("value", [0.0, 1e-30, 1e30, -5.0])
    def test_flat_lines(self, value: float) -> None:
        """A line of one value, however large or small, stays within the chart."""
        chart = line_chart("t", [Series("a", np.array([0.0, 1]), np.full(2, value), "c1")])
        (path,) = (element.get("d") or "" for element in parse(chart).iter("path"))
        heights = [float(point.split()[1]) for point in path.removeprefix("M").split("L")]
        assert all(0 <= height <= 250 for height in heights)

    def test_thinning_and_smoothing_keep_the_mean(self) -> None:
        """Long lines are thinned by means; smoothing is a centred mean."""
        x, y = thin(np.arange(10_000.0), np.arange(10_000.0) * 2, 100)
        assert len(x) == 100
        np.testing.assert_allclose(y, 2 * x)
        assert y.mean() == pytest.approx(9999)
        np.testing.assert_allclose(smooth(np.full(50, 3.0), 9), 3)
        assert smooth(np.array([0.0, 0, 9, 0, 0]), 3).tolist() == [0, 3, 3, 3, 0]

    def test_markup_escapes_once(self) -> None:
        """Text is escaped wherever it stands, and markup is not escaped again."""
        inner = tag("b", "<&>", title="\"'<")
        assert inner == '<b title="&quot;&#x27;&lt;">&lt;&amp;&gt;</b>'
        assert tag("p", inner, "<") == f"<p>{inner}&lt;</p>"
        assert join("<", inner) == f"&lt;{inner}"
        assert tag("img", src="a") == '<img src="a">'


class TestThumbnails:
    def test_frames_are_spread_over_the_video(self, tmp_path: Path) -> None:
        """The strip shows frames from the first to the last third, in order."""
        frames = np.zeros((30, 48, 64, 3), np.uint8)
        frames[:10, ..., 0] = frames[10:20, ..., 1] = frames[20:, ..., 2] = 255
        data = film_strip(write_video(tmp_path / "a.mov", frames), height=48)
        decoder = av.CodecContext.create("mjpeg", "r")
        (frame,) = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
        picture = frame.to_ndarray(format="rgb24").astype(int)
        assert picture.shape == (48, 3 * 64, 3)
        for third in range(3):
            colour = picture[8:-8, 64 * third + 8 : 64 * third + 56].mean((0, 1))
            assert colour.argmax() == third
            assert colour.max() > 200

    def test_flow_is_shown_as_colour(self, tmp_path: Path) -> None:
        """Optical flow becomes a picture too."""
        np.save(tmp_path / "flow.npy", np.full((9, 20, 30, 2), 128, np.uint8))
        assert film_strip(tmp_path / "flow.npy", "xy").startswith(b"\xff\xd8")

    def test_very_wide_videos(self, tmp_path: Path) -> None:
        """A video of odd shape is squeezed instead of filling the page."""
        np.save(tmp_path / "wide.npy", np.zeros((3, 2, 900, 3), np.uint8))
        assert film_strip(tmp_path / "wide.npy").startswith(b"\xff\xd8")

    def test_broken_videos(self, tmp_path: Path) -> None:
        """A file that is no video is an error in words."""
        (tmp_path / "a.avi").write_bytes(b"nothing")
        with pytest.raises(VideoError, match=r"a\.avi"):
            film_strip(tmp_path / "a.avi")


def test_plots(folder: Path, tmp_path: Path) -> None:
    """The curves and the matrix are drawn as PNG files, odd labels and dollar signs included."""
    pytest.importorskip("matplotlib")
    found = read_folder(folder)
    assert found.metrics is not None
    labels = ("$a", "$\\frac$", "動作")
    for path in (
        plot_curves(found.history, tmp_path / "curves.png"),
        plot_confusion(found.metrics, labels, tmp_path / "confusion.png"),
    ):
        assert path.read_bytes().startswith(b"\x89PNG")


class TestCommand:
    def test_report(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The command rebuilds the report and the pictures, and prints the path last."""
        folder = make_run(tmp_path / "run")
        (folder / "report.html").write_text("old")
        with pytest.raises(SystemExit, match="0"):
            main(["report", str(folder)])
        output = capsys.readouterr()
        assert output.out == f"{folder / 'report.html'}\n"
        assert (folder / "report.html").read_text().startswith("<!doctype html>")
        assert "30 videos" in output.err
        assert "Next: " in output.err
        if importlib.util.find_spec("matplotlib"):
            assert (folder / "curves.png").exists()
            assert (folder / "confusion.png").exists()

    def test_json(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """--json prints one document with the metrics; --no-plots, --data and -o are heeded."""
        folder = make_run(tmp_path / "run")
        (tmp_path / EVIL).mkdir(parents=True)
        for number in range(30):
            write_video(tmp_path / EVIL / f"{number}.mov", numbered(3))
        other = tmp_path / "other.html"
        options = ["--json", "--no-plots", "--worst", "2", "--data", str(tmp_path)]
        with pytest.raises(SystemExit, match="0"):
            main(["report", str(folder), "-o", str(other), *options])
        document = json.loads(capsys.readouterr().out)
        assert document["report"] == str(other)
        assert document["plots"] == []
        assert document["metrics"]["videos"] == 30
        assert not (folder / "report.html").exists()
        page = Page(other.read_text())
        assert [name for name, _ in page.elements].count("img") == 2

    def test_not_a_run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A folder that is no run's is one line and exit code 1."""
        with pytest.raises(SystemExit, match="1"):
            main(["report", str(tmp_path)])
        error = capsys.readouterr().err
        assert error.startswith("i3dzoo: ")
        assert "run.json: there is no such file" in error
