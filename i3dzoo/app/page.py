"""The page in Gradio: its tabs, its theme and its limits."""

from typing import Any

import gradio as gr

from i3dzoo.app.components import PageSessions
from i3dzoo.app.fvd_tab import FVDTab
from i3dzoo.app.mistakes_tab import MistakesTab
from i3dzoo.app.report_tab import ReportTab
from i3dzoo.app.sessions import Sessions
from i3dzoo.app.settings import Settings
from i3dzoo.app.video_tab import VideoTab


def theme() -> Any:
    """Return Gradio's plain theme with the fonts of the system, so that none is downloaded."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Menlo", "DejaVu Sans Mono", "monospace"]
    return gr.themes.Base(
        primary_hue="blue", neutral_hue="gray", radius_size="md", font=fonts, font_mono=mono
    )


def build_page(settings: Settings, sessions: Sessions) -> Any:
    """Return the page."""
    pages = PageSessions(sessions)
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
                run = VideoTab(settings, pages).lay_out()
            with gr.Tab("Mistakes"):
                MistakesTab(settings, pages).lay_out(tabs, run)
            with gr.Tab("Report"):
                ReportTab(settings, pages).lay_out()
            with gr.Tab("Compare sets (FVD)"):
                FVDTab(settings, pages).lay_out()
        blocks.unload(pages.close)
    blocks.queue(default_concurrency_limit=1, max_size=16, api_open=False)
    return blocks
