"""The page in Gradio: what people see, and what happens when they press something."""

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import gradio as gr

from i3dzoo import zoo
from i3dzoo.app import view
from i3dzoo.app.analysis import Analysis, Request, analyse
from i3dzoo.app.jobs import Status, explain, follow
from i3dzoo.app.mistakes import PAGE, Mistakes, read_mistakes
from i3dzoo.app.models import Models, check_path
from i3dzoo.app.optical_flow import methods
from i3dzoo.app.sessions import Sessions
from i3dzoo.app.settings import Settings
from i3dzoo.app.video_sets import NAMES, compare, place
from i3dzoo.errors import I3DZooError, OptionError
from i3dzoo.fvd import Embedder, load_protocol, protocol_names
from i3dzoo.report.report import write_report
from i3dzoo.video.series import VIDEO_SUFFIXES

_CAMERA: Final = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}}
_SUFFIXES: Final = sorted(VIDEO_SUFFIXES | {".npz", ".webp"})
_EMPTY: Final = '<div class="i3d-empty">The clip, its actions and their timeline appear here.</div>'
_STARTING: Final = Status("starting; one analysis runs at a time")
_PICK: Final = """element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-pick], [data-more]');
  if (button) trigger('more' in button.dataset ? 'more' : 'pick', { number: button.dataset.pick });
});"""


def _paths(component: Any) -> Any:
    """Let the functions of an upload get the paths of its files, a list, and nothing else.

    Gradio's File would leave a temporary file, and its Video needs the program ffmpeg. A class of
    our own is no way: Gradio writes a stub file beside the module of each.
    """

    def preprocess(payload: Any) -> list[str]:
        files = getattr(payload, "root", [payload] if payload else [])
        return [file.path for file in files]

    component.preprocess = preprocess
    return component


def theme() -> Any:
    """Return Gradio's plain theme with the fonts of the system, so that none is downloaded."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Menlo", "DejaVu Sans Mono", "monospace"]
    return gr.themes.Base(
        primary_hue="blue", neutral_hue="gray", radius_size="md", font=fonts, font_mono=mono
    )


def build_page(settings: Settings, sessions: Sessions) -> Any:
    """Return the page."""
    page = _Page(settings, sessions)
    with gr.Blocks(
        title="i3dzoo", analytics_enabled=False, delete_cache=(600, settings.keep_seconds)
    ) as blocks:
        gr.HTML(
            '<div class="i3d-head"><h1>i3dzoo</h1><p>Name the action in a video, and see when it '
            "happens. Everything stays on this machine.</p></div>"
            if settings.local
            else '<div class="i3d-head"><h1>i3dzoo</h1><p>Name the action in a video, and see when '
            "it happens. Uploads are deleted when you close the page.</p></div>"
        )
        with gr.Tabs() as tabs:
            with gr.Tab("Video", id="video"):
                run = page.video_tab()
            with gr.Tab("Mistakes"):
                page.mistakes_tab(tabs, run)
            with gr.Tab("Report"):
                page.report_tab()
            with gr.Tab("Compare sets (FVD)"):
                page.fvd_tab()
        blocks.unload(page.close)
    blocks.queue(default_concurrency_limit=1, max_size=16, api_open=False)
    return blocks


def _name(request: gr.Request) -> str:
    return str(request.session_hash)


class _Page:
    """The parts of the page, and the functions behind them."""

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self.settings, self.sessions = settings, sessions
        self.models = Models(settings)
        self.embedder = functools.cache(lambda: Embedder.load(device=settings.device))

    def close(self, request: gr.Request) -> None:
        """Delete what a closed page had uploaded."""
        self.sessions.close(_name(request))

    def stop(self, request: gr.Request) -> None:
        """Stop the work of a page."""
        self.sessions.open(_name(request)).stop.set()

    # the tab of a video

    def video_tab(self) -> dict[str, Any]:
        """Lay out the tab; return how it is run, for other tabs."""
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=280):
                drop = _paths(
                    gr.File(label="Drop a video", file_types=_SUFFIXES, height=150, elem_id="drop")
                )
                with gr.Accordion("Record with the camera", open=False):
                    camera = _paths(
                        gr.Video(
                            sources=["webcam"],
                            show_label=False,
                            webcam_options=gr.WebcamOptions(mirror=False, constraints=_CAMERA),
                            elem_id="camera",
                        )
                    )
                choices = self._choices()
                with gr.Row():
                    start = gr.Button("Run", variant="primary", elem_id="run", min_width=80)
                    stop = gr.Button("Stop", elem_id="stop", min_width=80)
            with gr.Column(scale=3, min_width=320):
                status = gr.HTML(elem_id="status")
                result = gr.HTML(_EMPTY, elem_id="result")
        run: dict[str, Any] = {
            "fn": self.run_video,
            "inputs": choices,
            "outputs": [status, result],
            "show_progress": "hidden",
            "concurrency_id": "work",
        }
        begin: dict[str, Any] = {"outputs": status, "queue": False, "show_progress": "hidden"}
        for source, event in ((drop, drop.upload), (camera, camera.stop_recording)):
            # the field is emptied, ready for another video
            event(
                self.take, source, [status, source, result], queue=False, show_progress="hidden"
            ).success(**run)
        start.click(lambda: view.status(_STARTING), **begin).then(**run)
        stop.click(self.stop, queue=False)
        return run

    def _choices(self) -> list[Any]:
        """Lay out what people choose, and return it as inputs of `run_video`."""
        names = list(zoo.names())
        model = gr.Dropdown(
            names,
            value=self.settings.model,
            label="Model",
            info="of the zoo, a file, or USER/NAME of the Hub"
            if self.settings.local
            else "of the zoo, or USER/NAME of the Hub",
            allow_custom_value=True,
            elem_id="model",
        )
        second = gr.Dropdown(
            [("none", ""), *((name, name) for name in names)],
            value="",
            label="Second model",
            info="to compare; a flow model gets the optical flow of the clip",
            allow_custom_value=True,
            elem_id="second",
        )
        flow = gr.Checkbox(label="Show the optical flow", elem_id="flow")
        method = gr.Radio(list(methods()), value=next(iter(methods())), label="Flow by")
        return [model, second, flow, method]

    def take(self, files: list[str], request: gr.Request) -> tuple[str, None, str]:
        """Take a video that was dropped or recorded, in place of the one before."""
        if not files:
            raise gr.Error("There is no video.", print_exception=False)
        session = self.sessions.open(_name(request))
        session.set_video(Path(files[0]), uploaded=True)
        return view.status(_STARTING), None, _EMPTY

    def run_video(
        self, model: str, second: str, flow: bool, method: str, request: gr.Request
    ) -> Iterator[tuple[Any, Any]]:
        """Show the clip, and what the models say, as it comes."""
        session = self.sessions.open(_name(request))
        if session.video is None:
            yield view.note("Drop a video first, or record one."), gr.skip()
            return
        wanted = Request(
            video=session.video,
            models=(model or "", *([second] if second else ())),
            flow=flow,
            method=methods()[method],
            max_seconds=self.settings.max_seconds,
            max_flow_seconds=self.settings.max_flow_seconds,
        )
        work = functools.partial(analyse, session, wanted, self.models)
        known: Analysis | None = None
        for update in follow(lambda progress: work(progress=progress), session.begin()):
            known = update.result or known
            ended = update.status is not None and update.status.kind != "running"
            shown: Any = gr.skip()
            if known is not None and (update.result or ended):
                # after an error, nothing more comes
                known = replace(known, finished=known.finished or ended)
                shown = view.analysis(known, session, self.settings)
            if known is not None and known.finished and not ended:
                yield "", shown
            else:
                yield view.status(update.status) if update.status else gr.skip(), shown

    # the tab of mistakes

    def mistakes_tab(self, tabs: Any, run: dict[str, Any]) -> None:
        """Lay out the tab."""
        found = gr.State(None)
        shown = gr.State(PAGE)
        with gr.Row(equal_height=False):
            path = gr.Textbox(
                label="Run or predictions",
                info="the folder of a run, or a predictions.jsonl of i3dzoo evaluate",
                placeholder="runs/hmdb51",
                elem_id="mistakes-path",
            )
            data = gr.Textbox(
                label="Videos", info="their folder; empty takes that of the run", elem_id="data"
            )
            only = gr.Dropdown([("all classes", "")], value="", label="True class", elem_id="only")
        show = gr.Button("Show the worst predictions", variant="primary", elem_id="mistakes-run")
        status = gr.HTML(elem_id="mistakes-status")
        cards = gr.HTML(elem_id="mistakes", js_on_load=_PICK)
        read: dict[str, Any] = {
            "fn": self.read_mistakes,
            "inputs": [path, data],
            "outputs": [status, found, only, shown],
        }
        draw: dict[str, Any] = {
            "fn": self.draw_mistakes,
            "inputs": [found, only, shown],
            "outputs": cards,
        }
        for event in (show.click, path.submit):
            event(**read).success(**draw)
        only.input(lambda: PAGE, outputs=shown).then(**draw)
        cards.more(lambda shown: shown + PAGE, shown, shown).then(**draw)
        cards.pick(self.pick_mistake, found, tabs, show_progress="hidden").success(**run)

    def read_mistakes(
        self, path: str, data: str
    ) -> tuple[str, Mistakes | None, dict[str, Any], int]:
        """Read the predictions that a person named."""
        try:
            file = check_path(path, "predictions", self.settings)
            videos = check_path(data, "videos", self.settings) if data.strip() else None
            found = read_mistakes(file, videos)
        except (I3DZooError, OSError) as error:
            return view.status(_failed(error)), None, gr.skip(), PAGE
        classes = dict.fromkeys(found.label(wrong.label) for wrong in found.wrong)
        choices = [("all classes", ""), *((name, name) for name in sorted(classes))]
        return "", found, gr.update(choices=choices, value=""), PAGE

    def draw_mistakes(self, found: Mistakes | None, only: str, shown: int) -> str:
        """Show the cards of wrong predictions."""
        return "" if found is None else view.mistakes(found, only or "", shown, playable=True)

    def pick_mistake(self, found: Mistakes, event: gr.EventData, request: gr.Request) -> Any:
        """Choose the video of a card for the first tab."""
        number = str(event._data["number"])  # Gradio has no other way
        if not number.isdecimal() or int(number) >= len(found.wrong):
            raise gr.Error("There is no such video.", print_exception=False)
        video = found.find(found.wrong[int(number)].video)
        self.sessions.open(_name(request)).set_video(video, uploaded=False)
        return gr.update(selected="video")

    # the tab of a report

    def report_tab(self) -> None:
        """Lay out the tab."""
        with gr.Row(equal_height=False):
            path = gr.Textbox(
                label="Run",
                info="the folder that i3dzoo finetune wrote",
                placeholder="runs/hmdb51",
                elem_id="report-path",
                scale=3,
            )
            show = gr.Button("Show the report", variant="primary", elem_id="report-run", scale=1)
        shown = gr.HTML(elem_id="report")
        for event in (show.click, path.submit):
            event(self.show_report, path, shown)

    def show_report(self, path: str, request: gr.Request) -> str:
        """Write the report of a run into the session, and show it."""
        session = self.sessions.open(_name(request))
        try:
            folder = check_path(path, "runs", self.settings)
            report = write_report(folder, session.part("report") / "report.html")
            return view.report(session.address(report.replace(session.shown("report.html"))))
        except (I3DZooError, OSError) as error:
            return view.status(_failed(error))

    # the tab of FVD

    def fvd_tab(self) -> None:
        """Lay out the tab."""
        status = gr.HTML(elem_id="fvd-status", render=False)
        with gr.Row(equal_height=False):
            for name in NAMES:
                drop = _paths(
                    gr.File(
                        label=f"Drop a folder of {name} videos",
                        file_count="directory",
                        height=150,
                        elem_id=f"set-{name}",
                    )
                )
                which = gr.State(name)
                drop.upload(
                    self.place_set, [which, drop], status, queue=False, show_progress="hidden"
                )
                drop.clear(self.forget_set, which, queue=False)
        with gr.Row(equal_height=False):
            protocol = gr.Dropdown(
                list(protocol_names()),
                value="tf",
                label="Protocol",
                info="the convention of the paper that you compare with; tf is the definition",
                elem_id="protocol",
            )
            frames = gr.Number(
                16, label="Frames of a clip", minimum=9, precision=0, elem_id="frames"
            )
        with gr.Row():
            start = gr.Button("Compute FVD", variant="primary", elem_id="fvd-run")
            stop = gr.Button("Stop")
        status.render()  # type: ignore[no-untyped-call] # of Gradio
        result = gr.HTML(elem_id="fvd")
        start.click(
            lambda: view.status(_STARTING), outputs=status, queue=False, show_progress="hidden"
        ).then(
            self.run_fvd,
            [protocol, frames],
            [status, result],
            show_progress="hidden",
            concurrency_id="work",
        )
        stop.click(self.stop, queue=False)

    def place_set(self, name: str, files: list[str], request: gr.Request) -> str:
        """Take a folder of videos."""
        session = self.sessions.open(_name(request))
        try:
            count = place(session, name, files)
        except I3DZooError as error:
            return view.status(_failed(error))
        return view.note(f"{count} {name} videos are uploaded.")

    def forget_set(self, name: str, request: gr.Request) -> None:
        """Delete a folder of videos."""
        self.sessions.open(_name(request)).part(name)

    def run_fvd(
        self, protocol: str, frames: float, request: gr.Request
    ) -> Iterator[tuple[Any, Any]]:
        """Compute the FVD of the two folders."""
        session = self.sessions.open(_name(request))

        def work(progress: Any) -> Iterator[str]:
            chosen = load_protocol(_choice(protocol)).replace(frames=int(frames))
            found = compare(session, chosen, self.embedder, progress)
            yield view.fvd(found, protocol)

        for update in follow(work, session.begin()):
            if update.result is not None:
                yield "", update.result
            elif update.status is not None:
                yield view.status(update.status), gr.skip()


def _choice(protocol: str) -> str:
    """Return the name of a protocol; a file of one may not be named."""
    if protocol not in protocol_names():
        raise OptionError(f"{protocol}: no such protocol; take {', '.join(protocol_names())}")
    return protocol


def _failed(error: BaseException) -> Status:
    return Status(explain(error), kind="failed")
