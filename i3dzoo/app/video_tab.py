"""The tab of a video: what models say about a clip, over time."""

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import gradio as gr

from i3dzoo import zoo
from i3dzoo.app import view
from i3dzoo.app.analysis import Analysis, Request, analyse
from i3dzoo.app.components import STARTING, PageSessions, file_paths
from i3dzoo.app.jobs import follow
from i3dzoo.app.models import Models
from i3dzoo.app.optical_flow import methods
from i3dzoo.app.settings import Settings
from i3dzoo.video.series import VIDEO_SUFFIXES

_CAMERA: Final = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}}
_SUFFIXES: Final = sorted(VIDEO_SUFFIXES | {".npz", ".webp"})
_EMPTY: Final = '<div class="i3d-empty">The clip, its actions and their timeline appear here.</div>'


class VideoTab:
    """The layout of the tab, and the functions behind it."""

    def __init__(self, settings: Settings, sessions: PageSessions) -> None:
        self.settings, self.sessions = settings, sessions
        self.models = Models(settings)

    def lay_out(self) -> dict[str, Any]:
        """Lay out the tab; return the event that runs it, for other tabs."""
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=280):
                drop = file_paths(
                    gr.File(label="Drop a video", file_types=_SUFFIXES, height=150, elem_id="drop")
                )
                with gr.Accordion("Record with the camera", open=False):
                    camera = file_paths(
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
        start.click(lambda: view.status(STARTING), **begin).then(**run)
        stop.click(self.sessions.stop, queue=False)
        return run

    def _choices(self) -> list[Any]:
        """Lay out what people choose, and return it as inputs of `run_video`."""
        names = list(zoo.names())
        model = gr.Dropdown(
            names,
            value=self.settings.model,
            label="Model",
            info="a zoo model, a file, or USER/NAME on the Hub"
            if self.settings.local
            else "a zoo model, or USER/NAME on the Hub",
            allow_custom_value=True,
            elem_id="model",
        )
        second = gr.Dropdown(
            [("none", ""), *((name, name) for name in names)],
            value="",
            label="Second model",
            info="for a comparison; a flow model gets the optical flow of the clip",
            allow_custom_value=True,
            elem_id="second",
        )
        flow = gr.Checkbox(label="Show the optical flow", elem_id="flow")
        method = gr.Radio(list(methods()), value=next(iter(methods())), label="Flow by")
        return [model, second, flow, method]

    def take(self, files: list[str], request: gr.Request) -> tuple[str, None, str]:
        """Take a video that was dropped or recorded, in place of the one before."""
        if not files:
            raise gr.Error("No video was received.", print_exception=False)
        session = self.sessions.open(request)
        session.set_video(Path(files[0]), uploaded=True)
        return view.status(STARTING), None, _EMPTY

    def run_video(
        self, model: str, second: str, flow: bool, method: str, request: gr.Request
    ) -> Iterator[tuple[Any, Any]]:
        """Show the clip, and what the models say, as it comes."""
        session = self.sessions.open(request)
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
