"""The tab of a report: a training run as one page."""

import gradio as gr

from i3dzoo.app import view
from i3dzoo.app.components import PageSessions, failed
from i3dzoo.app.models import check_path
from i3dzoo.app.settings import Settings
from i3dzoo.errors import I3DZooError
from i3dzoo.report.report import write_report


class ReportTab:
    """The layout of the tab, and the function behind it."""

    def __init__(self, settings: Settings, sessions: PageSessions) -> None:
        self.settings, self.sessions = settings, sessions

    def lay_out(self) -> None:
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
        session = self.sessions.open(request)
        try:
            folder = check_path(path, "runs", self.settings)
            report = write_report(folder, session.part("report") / "report.html")
            return view.report(session.address(report.replace(session.shown("report.html"))))
        except (I3DZooError, OSError) as error:
            return view.status(failed(error))
