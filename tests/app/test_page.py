"""The page in a real Chromium. The tests share one tab, and each leaves it usable."""

import os
import re
import socket
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import requests
from helpers.app_page import Served, screenshot, until
from helpers.predictions import HEADER
from helpers.run_folders import EVIL, add_predictions, make_run

from i3dzoo.checkpoints.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.evaluation.prediction_file import PredictionWriter
from i3dzoo.evaluation.predictions import VideoPrediction
from i3dzoo.video import read_index

Shown = Any  # of conftest.py
PICTURES = os.environ.get("I3DZOO_SCREENSHOTS", "")


def cut(source: Path, target: Path, frames: int) -> Path:
    """Copy the first frames of a video as they are, without decoding them."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            if number == frames or packet.dts is None:
                break
            packet.stream = stream
            new.mux(packet)
    return target


def choose(tab: Any, field: str, value: object) -> None:
    """Type a value into a field that suggests values."""
    tab.fill(f"#{field} input", str(value))
    tab.press(f"#{field} input", "Enter")


def wait_for_answer(tab: Any, lanes: int = 1) -> None:
    """Wait until all models have answered, or one sentence says why not."""
    tab.wait_for_function(
        """(lanes) => document.querySelector('#status [role=alert]') ||
        (!document.querySelector('#result .waiting, #status progress') &&
        document.querySelectorAll('#result .lane').length === lanes)""",
        arg=lanes,
    )


def run(tab: Any, lanes: int = 1) -> None:
    """Press Run, and wait for the answer."""
    tab.evaluate("document.querySelector('#result i3d-player')?.remove()")
    tab.click("#run")
    wait_for_answer(tab, lanes)


def times(tab: Any) -> list[float]:
    """Return where each video is, in seconds."""
    found: list[float] = tab.evaluate(
        "[...document.querySelectorAll('#result video')].map((video) => video.currentTime)"
    )
    return found


@pytest.fixture(scope="module")
def cricket(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 40 frames of DeepMind's sample, 1.6 s."""
    source = test_data / "clips" / "v_CricketShot_g04_c01_rgb.gif"
    return cut(source, tmp_path_factory.mktemp("clip") / "cricket.gif", 40)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("", {}, 200),
        ("i3dzoo/app.js", {}, 200),
        ("", {"Host": "attacker.example"}, 403),  # a name that leads to 127.0.0.1
        ("gradio_api/queue/join", {"Origin": "https://attacker.example"}, 403),
        ("gradio_api/queue/join", {"Origin": "null"}, 403),
        ("gradio_api/vibe-code/", {}, 404),
        ("gradio_api/proxy=https://attacker.example/", {}, 404),
        ("monitoring", {}, 404),
        ("gradio_api/file=/etc/passwd", {}, 404),
        ("session/guessed/clip.mp4", {}, 404),
        ("session/x/..%2f..%2fclip.mp4", {}, 404),
    ],
)
def test_only_the_page_itself_is_answered(
    served: Served, path: str, headers: dict[str, str], status: int
) -> None:
    """Requests with the name or the origin of another site, and unknown paths, are refused."""
    answer = requests.get(served.address + path, headers=headers, timeout=60)
    assert answer.status_code == status


def test_the_page_may_load_nothing_from_elsewhere(served: Served) -> None:
    """The policy names no other host, and the page asks for no font and no script of one."""
    answer = requests.get(served.address, timeout=60)
    assert "default-src 'self';" in answer.headers["Content-Security-Policy"]
    assert "//" not in answer.headers["Content-Security-Policy"]
    for attribute in ('src="http', 'href="http', "@import", "fonts.googleapis"):
        assert attribute not in answer.text
    theme = requests.get(served.address + "theme.css", timeout=60).text
    assert re.search(r"@import|url\(.?(https?:|//)", theme) is None


def test_large_uploads_are_refused_before_they_are_sent(served: Served) -> None:
    """The length that a request announces is enough to refuse it."""
    port = int(served.address.rstrip("/").rpartition(":")[2])
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    for line, status in (
        (f"Content-Length: {30 << 20}", b"413"),
        ("Transfer-Encoding: chunked", b"411"),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(f"{head}{line}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        assert answer.split()[1] == status
    assert served.files() == []


def test_a_dropped_video_gets_its_action_a_timeline_and_the_provenance(
    shown: Shown, cricket: Path
) -> None:
    """The published network names DeepMind's sample, and Chromium plays all of it."""
    tab = shown.tab
    tab.set_input_files("#drop input[type=file]", cricket)
    wait_for_answer(tab)
    assert tab.inner_text("#result .top li:first-child .name") == "playing cricket"
    assert float(tab.inner_text("#result .top li:first-child .value").split()[0]) > 90
    assert tab.locator("#result svg .curve").count() == 5
    tab.click("#result .provenance summary")
    provenance = tab.inner_text("#result .provenance dl")
    assert "rgb_scratch: published, and recognised by its tensors" in provenance
    assert re.search(r"SHA-256 of the file\s+[0-9a-f]{64}", provenance)
    assert "Apache-2.0" in provenance
    tab.click("#result .provenance summary")
    video = tab.evaluate(
        "(({duration, videoWidth, error}) => [duration, videoWidth, error])"
        "(document.querySelector('#result video'))"
    )
    assert video == [pytest.approx(1.6, abs=0.05), 224, None]


def test_the_timeline_seeks_and_moves_with_the_video(shown: Shown) -> None:
    """A click, keys and playing move the video, the cursor and the words together."""
    tab = shown.tab
    tab.click("#result .scrubber", position={"x": 300, "y": 20})
    width = tab.locator("#result .scrubber").bounding_box()["width"]
    assert times(tab) == [pytest.approx(1.6 * 300 / width, abs=0.04)]
    tab.focus("#result .scrubber")
    tab.keyboard.press("Home")
    tab.keyboard.press("ArrowRight")
    assert times(tab) == [pytest.approx(0.32, abs=0.01)]
    assert "at 0.3 s: playing cricket" in tab.inner_text("#result .now")
    assert "0.3 seconds; at 0.3 s: playing cricket" in tab.get_attribute(
        "#result .scrubber", "aria-valuetext"
    )
    tab.evaluate("document.querySelector('#result video').playbackRate = 0.2")  # for slow machines
    tab.keyboard.press("Space")
    tab.wait_for_function("document.querySelector('#result video').currentTime > 0.6")
    tab.keyboard.press("Space")
    tab.wait_for_selector("#result .play[aria-label='Play']")
    moved = tab.evaluate("parseFloat(document.querySelector('#result .cursor').style.left)")
    assert moved == pytest.approx(100 * times(tab)[0] / 1.6, abs=3)


def test_the_page_fits_a_phone_and_the_dark(shown: Shown) -> None:
    """Nothing is wider than a phone, and text has the contrast that WCAG asks for, 4.5."""
    tab = shown.tab
    tab.emulate_media(color_scheme="dark")
    tab.wait_for_function("document.querySelector('.dark') !== null")
    assert min(contrasts(tab)) >= 4.5
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.wait_for_function("document.scrollingElement.scrollWidth <= innerWidth")
    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.emulate_media(color_scheme="light")
    tab.wait_for_function("document.querySelector('.dark') === null")
    assert min(contrasts(tab)) >= 4.5


def contrasts(tab: Any) -> list[float]:
    """Return the contrast of texts with the nearest background behind them (WCAG 2.2)."""
    pairs = tab.evaluate(
        """['.i3d-head p', '.now', '.top .name', '.top .value', '.facts', 'summary', '.line-name']
        .map((selector) => {
          let node = document.querySelector(`#result ${selector}, ${selector}`);
          const ink = getComputedStyle(node).color;
          const ground = () => getComputedStyle(node).backgroundColor;
          const clear = () => /, 0\\)$|transparent/.test(ground());
          while (node.parentElement && clear()) node = node.parentElement;
          return [ink, ground()];
        })"""
    )

    def luminance(colour: str) -> float:
        values = np.array([float(n) for n in re.findall(r"[\d.]+", colour)[:3]]) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    found = []
    for ink, ground in pairs:
        low, high = sorted([luminance(ink), luminance(ground)])
        found.append((high + 0.05) / (low + 0.05))
    return found


def test_two_models_are_compared_and_flow_is_shown_beside(
    shown: Shown, small_models: tuple[Path, Path]
) -> None:
    """An RGB and a flow network answer side by side, and their sum below; both videos are one."""
    tab = shown.tab
    choose(tab, "model", small_models[0])
    choose(tab, "second", small_models[1])
    tab.click("text=Farnebäck")
    run(tab, lanes=3)
    titles = tab.locator("#result .lane h3").all_inner_texts()
    assert [title.split("/")[-1] for title in titles] == [
        "rgb.safetensors",
        "flow.safetensors",
        "RGB and flow together",
    ]
    tab.wait_for_function(
        "[...document.querySelectorAll('#result video')].every((v) => v.readyState)"
    )
    tab.focus("#result .scrubber")
    tab.keyboard.press("Home")
    tab.keyboard.press("PageUp")
    assert times(tab) == [pytest.approx(1.56, abs=0.05), pytest.approx(1.56, abs=0.05)]
    assert "Farnebäck" in tab.inner_text("#result .lanes")
    choose(tab, "second", "")


def test_an_unknown_model_is_one_sentence(shown: Shown) -> None:
    """The page says what is wrong, and goes on."""
    tab = shown.tab
    choose(tab, "second", "rgb_scrach")
    run(tab)
    assert tab.inner_text("#status [role=alert]").startswith(
        "rgb_scrach: is neither a file nor a zoo model; did you mean rgb_scratch"
    )
    choose(tab, "second", "")


def test_mistakes_are_shown_worst_first_and_can_be_looked_at(
    shown: Shown, cricket: Path, tmp_path: Path
) -> None:
    """Cards of a run, with hostile names as text; the video of one goes to the first tab."""
    tab = shown.tab
    folder = make_run(tmp_path / "run", videos=0, data=str(cricket.parent))
    add_predictions(folder, {f"{EVIL}.mov": [0, 0, 3], cricket.name: [9, 0, 0], "right": [5, 0, 0]})
    tab.click("role=tab[name='Mistakes']")
    tab.fill("#mistakes-path textarea, #mistakes-path input", str(folder))
    tab.click("#mistakes-run")
    tab.wait_for_selector("#mistakes .clip")
    names = tab.locator("#mistakes code").all_inner_texts()
    assert names == [cricket.name, f"{EVIL}.mov"]
    assert tab.locator("#mistakes img").count() == 1
    tab.evaluate("document.querySelector('#result i3d-player')?.remove()")
    tab.click("#mistakes [data-pick='0']")
    tab.wait_for_selector("#result figcaption:has-text('cricket.gif')")
    wait_for_answer(tab)
    assert (
        tab.evaluate("document.querySelectorAll('#mistakes script, #mistakes img[src=x]').length")
        == 0
    )


def test_the_report_of_a_run_is_shown(shown: Shown, tmp_path: Path) -> None:
    """The report is in a frame that may not reach the page, and its script works."""
    tab = shown.tab
    folder = make_run(tmp_path / "run", title="Waving hands")
    tab.click("role=tab[name='Report']")
    tab.fill("#report-path textarea, #report-path input", str(folder))
    tab.click("#report-run")
    frame = tab.frame_locator("#report iframe")
    assert frame.locator("h1").inner_text() == "Waving hands"
    tip = frame.locator("#tip")
    for _ in range(50):  # while the frame loads, it grows, and moves what is under the mouse
        tab.mouse.move(0, 0)
        frame.locator("[data-tip]").first.hover()
        if tip.is_visible():
            break
    assert tip.is_visible()
    tab.fill("#report-path textarea, #report-path input", str(tmp_path))
    tab.click("#report-run")
    tab.wait_for_selector("#report [role=alert]")
    assert "run.json: the file does not exist" in tab.inner_text("#report [role=alert]")


def test_fvd_of_two_uploaded_folders(shown: Shown, cricket: Path, tmp_path: Path) -> None:
    """The same videos have the distance 0, by the definition of FVD."""
    tab = shown.tab
    tab.click("role=tab[name='Compare sets (FVD)']")
    for name in ("real", "generated"):
        (folder := tmp_path / name).mkdir()
        for number in range(2):
            cut(cricket, folder / f"{number}.gif", 9 + number)
        (folder / "notes.txt").write_text("not a video")
        tab.set_input_files(f"#set-{name} input[type=file]", folder)
        tab.wait_for_selector(f"#fvd-status:has-text('2 {name} videos are uploaded')")
    tab.fill("#frames input", "9")
    tab.click("#fvd-run")
    tab.wait_for_selector("#fvd .tile, #fvd-status [role=alert]")
    assert float(tab.inner_text("#fvd .lead b")) == pytest.approx(0, abs=0.01)
    assert "2 features are too few for 400 dimensions" in tab.inner_text("#fvd")


def test_a_recording_is_taken(shown: Shown) -> None:
    """The camera of Chromium, which films a moving pattern, is a video like any other."""
    tab = shown.tab
    tab.click("role=tab[name='Video']")
    tab.click("text=Record with the camera")
    tab.click("#camera button:has-text('Click to Access Webcam')")
    tab.click("#camera button:has-text('Record')")
    tab.wait_for_timeout(1500)
    tab.click("#camera button:has-text('Stop')")
    tab.wait_for_function(
        "!document.querySelector('#result figcaption')?.innerText.includes('cricket')"
    )
    wait_for_answer(tab)
    assert tab.locator("#result .top li").count() == 5


@pytest.mark.skipif(not PICTURES, reason="set I3DZOO_SCREENSHOTS to write the pictures of the docs")
def test_pictures_of_the_docs(shown: Shown, genuine: Checkpoint, test_data: Path) -> None:
    """Each picture shows what its caption says, and has less than 150 kB."""
    tab, folder = shown.tab, Path(PICTURES).absolute()
    clip = test_data / "clips" / "v_CricketShot_g04_c01_rgb.gif"
    tab.set_default_timeout(500_000)
    tab.click("role=tab[name='Video']")
    choose(tab, "model", "rgb_scratch")
    choose(tab, "second", "")
    tab.set_input_files("#drop input[type=file]", clip)
    tab.wait_for_selector(f"#result figcaption:has-text('{clip.name}')")
    wait_for_answer(tab)
    tab.click("#result .scrubber", position={"x": 500, "y": 20})
    screenshot(tab, "app-video", folder)
    tab.emulate_media(color_scheme="dark")
    tab.wait_for_function("document.querySelector('.dark') !== null")
    screenshot(tab, "app-dark", folder)
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.wait_for_function("document.scrollingElement.scrollWidth <= innerWidth")
    screenshot(tab, "app-phone", folder, height=1500)
    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.emulate_media(color_scheme="light")
    wrong = genuine.metadata.input.replace(channels="bgr")
    (shown.served.folder / "mine").mkdir()
    write_checkpoint(
        shown.served.folder / "mine" / "bgr.safetensors",
        Checkpoint(genuine.tensors, genuine.metadata.replace(input=wrong, zoo=None)),
    )
    choose(tab, "second", "mine/bgr.safetensors")
    run(tab, lanes=2)
    assert tab.locator("#status [role=alert]").count() == 0
    screenshot(tab, "app-compare", folder)
    choose(tab, "second", "")
    tab.check("#flow input")
    run(tab)
    tab.click("#result .scrubber", position={"x": 300, "y": 20})
    tab.wait_for_function("!document.querySelector('#result video').seeking")
    screenshot(tab, "app-flow", folder)


@pytest.mark.skipif(not PICTURES, reason="set I3DZOO_SCREENSHOTS to write the pictures of the docs")
def test_pictures_of_a_run(shown: Shown, motions: Path) -> None:
    """The mistakes and the report of a run on generated clips."""
    tab, folder = shown.tab, Path(PICTURES).absolute()
    index = read_index(motions)
    (shown.served.folder / "runs").mkdir()
    made = make_run(
        shown.served.folder / "runs" / "motions",
        videos=0,
        data=str(motions),
        labels=list(index.classes),
        title="Three motions, generated",
        source={"model": "rgb_scratch", "dataset": "generated"},
        environment={"python": "3.11"},
    )
    random = np.random.default_rng(3)
    with PredictionWriter(made / "predictions.jsonl", HEADER) as writer:
        for entry in index.entries:
            label, logits = index.classes.index(entry.label), random.normal(size=3).astype("f4")
            writer.write(VideoPrediction(entry.file, label, logits))
    tab.click("role=tab[name='Mistakes']")
    tab.fill("#mistakes-path textarea, #mistakes-path input", "runs/motions")
    tab.click("#mistakes-run")
    tab.wait_for_selector("#mistakes .clip")
    screenshot(tab, "app-mistakes", folder)
    tab.click("role=tab[name='Report']")
    tab.fill("#report-path textarea, #report-path input", "runs/motions")
    tab.click("#report-run")
    tab.frame_locator("#report iframe").locator("h1:has-text('generated')").wait_for()
    screenshot(tab, "app-report", folder)


def test_nothing_leaves_the_machine_and_uploads_are_deleted(shown: Shown) -> None:
    """Browser and server met only loopback in all tests before; a closed page leaves no file."""
    outside = [
        address
        for address in shown.requests
        if not address.startswith((shown.served.address, "data:", "blob:"))
    ]
    assert len(shown.requests) > 50
    assert outside == []
    assert shown.served.hosts() <= {"127.0.0.1", "localhost"}
    bad = ("Content Security Policy", "uncaught")
    assert [entry for entry in shown.console if any(word in entry for word in bad)] == []
    assert any(name.endswith(".mp4") for name in shown.served.files())
    shown.tab.close()
    assert until(lambda: shown.served.files() == []), shown.served.files()
