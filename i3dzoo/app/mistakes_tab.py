"""The tab of mistakes: the worst predictions of a run, with frames."""

from typing import Any, Final

import gradio as gr

from i3dzoo.app import view
from i3dzoo.app.components import PageSessions, failed
from i3dzoo.app.mistakes import PAGE, Mistakes, read_mistakes
from i3dzoo.app.models import check_path
from i3dzoo.app.settings import Settings
from i3dzoo.errors import I3DZooError

_PICK: Final = """element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-pick], [data-more]');
  if (button) trigger('more' in button.dataset ? 'more' : 'pick', { number: button.dataset.pick });
});"""


class MistakesTab:
    """The layout of the tab, and the functions behind it."""

    def __init__(self, settings: Settings, sessions: PageSessions) -> None:
        self.settings, self.sessions = settings, sessions

    def lay_out(self, tabs: Any, run: dict[str, Any]) -> None:
        """Lay out the tab; `run` is the event that runs the tab of a video."""
        found = gr.State(None)
        shown = gr.State(PAGE)
        with gr.Row(equal_height=False):
            path = gr.Textbox(
                label="Run or predictions",
                info="a run folder, or a predictions.jsonl from i3dzoo evaluate",
                placeholder="runs/hmdb51",
                elem_id="mistakes-path",
            )
            data = gr.Textbox(
                label="Videos",
                info="their folder; leave it empty to use the run's own",
                elem_id="data",
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
            return view.status(failed(error)), None, gr.skip(), PAGE
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
            raise gr.Error("The video of this card was not found.", print_exception=False)
        video = found.find(found.wrong[int(number)].video)
        self.sessions.open(request).set_video(video, uploaded=False)
        return gr.update(selected="video")
