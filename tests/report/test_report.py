"""The report of a run is complete and self-contained, and hostile names in it do no harm."""

import base64
import hashlib
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.run_folders import EVIL, add_predictions, make_run
from helpers.video_files import numbered, write_video

from i3dzoo.errors import OutputError
from i3dzoo.evaluation.metrics import Metrics
from i3dzoo.report.mistakes import worst_predictions
from i3dzoo.report.report import write_report
from i3dzoo.report.run_folder import read_run_folder


class Page(HTMLParser):
    """The elements, attributes and texts of a page, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join(self.texts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Add an element."""
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that elements close in order."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Add a text."""
        (self.scripts if self.open[-1:] == ["script"] else self.texts).append(data)

    def values(self, attribute: str) -> list[str]:
        """Return the values of an attribute."""
        return [a[attribute] or "" for _, a in self.elements if attribute in a]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder."""
    return make_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    """The report of that run."""
    return Page(write_report(folder).read_text("utf-8"))


@pytest.fixture(scope="module")
def metrics(folder: Path) -> Metrics:
    """The metrics of that run."""
    metrics = read_run_folder(folder).metrics
    assert metrics is not None
    return metrics


def test_loads_nothing_and_runs_only_its_own_script(page: Page) -> None:
    """Nothing is loaded or injected, and the content security policy allows no other script."""
    assert not {"srcset", "data", "action"} & {key for _, a in page.elements for key in a}
    assert all(value.startswith("data:") for value in page.values("src"))
    assert all(value.startswith("#") for value in page.values("href"))
    assert Counter(name for name, _ in page.elements)["script"] == 1
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policies = [a["content"] for _, a in page.elements if "http-equiv" in a]
    others = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert policies == [f"{others}; script-src 'sha256-{digest}'"]
    for word in ("http://", "https://", "@import", "url("):
        assert word not in page.text
    # names that are HTML are shown as text
    assert not [key for _, a in page.elements for key in a if key.startswith("on")]
    assert EVIL in page.text
    assert any(EVIL in tip for tip in page.values("data-tip"))


def test_shows_the_numbers(folder: Path, metrics: Metrics, page: Page) -> None:
    """Accuracies, interval, confusion, recipe, environment and commands are all there."""
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


def test_values_under_the_pointer(metrics: Metrics, page: Page) -> None:
    """A cell of the matrix and a place in the curves show their numbers."""
    pytest.importorskip("matplotlib")
    count, tips = int(metrics.confusion[0, 1]), page.values("data-tip")
    assert f"run → wave\n{count} of 15 videos, {count / 15:.0%}" in tips
    assert f"epoch 3\ntraining  {(2 / 59 + 2 / 60) / 2:.4g}\nvalidation  1.25" in tips


def test_without_matplotlib(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The report has everything but the pictures, and says which extra draws them."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    page = Page(write_report(folder, tmp_path / "report.html").read_text("utf-8"))
    assert "pip install 'i3dzoo[plot]'" in page.text
    assert "svg" not in {name for name, _ in page.elements}
    assert "Most confused" in page.text
    assert "1.2500" in page.text  # validation loss, in the table of evaluations


def test_the_output(folder: Path, page: Page, tmp_path: Path) -> None:
    """The same run gives the same bytes, without a date or random id; links are refused."""
    assert page.elements
    again = write_report(folder, tmp_path / "again.html")
    assert again.read_bytes() == (folder / "report.html").read_bytes()
    (tmp_path / "link.html").symlink_to(tmp_path / "target")
    with pytest.raises(OutputError, match="is a symbolic link"):
        write_report(folder, tmp_path / "link.html")


def test_gives_the_reason_for_missing_frames(page: Page) -> None:
    """A video that no longer exists is listed with the reason."""
    assert page.text.count("No frames:") == 12
    assert "no such file or folder" in page.text


def test_frames_of_the_worst_videos(tmp_path: Path) -> None:
    """Frames of videos that exist are JPEG pictures inside the page."""
    (tmp_path / "videos").mkdir()
    for name in ("a.mov", "b.mov"):
        write_video(tmp_path / "videos" / name, numbered(9))
    folder = make_run(tmp_path / "run", videos=0, data=str(tmp_path / "videos"))
    add_predictions(folder, {"a.mov": [0, 5, 1], "b.mov": [5, 0, 1]})
    page = Page(write_report(folder, tmp_path / "elsewhere.html").read_text())
    images = page.values("src")
    assert len(images) == 2
    for image in images:
        data = image.removeprefix("data:image/jpeg;base64,")
        assert base64.b64decode(data, validate=True).startswith(b"\xff\xd8")


def test_names_that_are_not_unicode(tmp_path: Path) -> None:
    """Bytes of file names that are not UTF-8, and control characters, are written escaped."""
    folder = make_run(tmp_path / "run", videos=0, labels=["a\x00\x1b", "b", "c"])
    add_predictions(folder, {"wave/\udcff.avi": [0, 5, 1]})
    assert "wave/\\udcff.avi" in write_report(folder).read_text("utf-8")


def test_before_the_first_evaluation_and_step(tmp_path: Path) -> None:
    """A run without predictions has its curves; one without steps says that there are no values."""
    folder = make_run(tmp_path / "run")
    (folder / "predictions.jsonl").unlink()
    page = Page(write_report(folder).read_text())
    assert "The run has not been evaluated" in page.text
    assert "Worst predictions" not in page.text
    (folder / "metrics.jsonl").write_text("")
    assert "No values are recorded" in Page(write_report(folder).read_text()).text


def test_worst_predictions_are_the_least_probable_first(folder: Path) -> None:
    """Only wrong predictions are listed, those whose true class is least probable first."""
    predictions = read_run_folder(folder).predictions
    assert predictions is not None
    worst = worst_predictions(predictions, 100)
    wrong = predictions.logits.argmax(1) != predictions.labels
    assert len(worst) == wrong.sum() > 3
    own = [row.p_label for row in worst]
    assert own == sorted(own)
    assert all(row.p_predicted > row.p_label for row in worst)
    assert worst[:2] == worst_predictions(predictions, 2)
