"""The tab of FVD: the distance of two uploaded folders of videos."""

import functools
from collections.abc import Iterator
from typing import Any

import gradio as gr

from i3dzoo.app import view
from i3dzoo.app.components import STARTING, PageSessions, failed, file_paths
from i3dzoo.app.jobs import follow
from i3dzoo.app.settings import Settings
from i3dzoo.app.video_sets import NAMES, compare, place
from i3dzoo.errors import I3DZooError, OptionError
from i3dzoo.fvd import Embedder, load_protocol, protocol_names


class FVDTab:
    """The layout of the tab, and the functions behind it."""

    def __init__(self, settings: Settings, sessions: PageSessions) -> None:
        self.sessions = sessions
        self.embedder = functools.cache(lambda: Embedder.load(device=settings.device))

    def lay_out(self) -> None:
        """Lay out the tab."""
        status = gr.HTML(elem_id="fvd-status", render=False)
        with gr.Row(equal_height=False):
            for name in NAMES:
                drop = file_paths(
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
            lambda: view.status(STARTING), outputs=status, queue=False, show_progress="hidden"
        ).then(
            self.run_fvd,
            [protocol, frames],
            [status, result],
            show_progress="hidden",
            concurrency_id="work",
        )
        stop.click(self.sessions.stop, queue=False)

    def place_set(self, name: str, files: list[str], request: gr.Request) -> str:
        """Take a folder of videos."""
        session = self.sessions.open(request)
        try:
            count = place(session, name, files)
        except I3DZooError as error:
            return view.status(failed(error))
        return view.note(f"{count} {name} videos are uploaded.")

    def forget_set(self, name: str, request: gr.Request) -> None:
        """Delete a folder of videos."""
        self.sessions.open(request).part(name)

    def run_fvd(
        self, protocol: str, frames: float, request: gr.Request
    ) -> Iterator[tuple[Any, Any]]:
        """Compute the FVD of the two folders."""
        session = self.sessions.open(request)

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
        raise OptionError(
            f"{protocol}: no such protocol; choose one of {', '.join(protocol_names())}"
        )
    return protocol
