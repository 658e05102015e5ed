"""What the tabs of the page share: sessions by request, paths of uploads, errors as a status."""

from typing import Any, Final

import gradio as gr

from i3dzoo.app.jobs import Status, explain
from i3dzoo.app.sessions import Session, Sessions

STARTING: Final = Status("starting; one analysis runs at a time")


class PageSessions:
    """The session of the page that sends a request."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def open(self, request: gr.Request) -> Session:
        """Return the session, which is new for a new page."""
        return self._sessions.open(str(request.session_hash))

    def close(self, request: gr.Request) -> None:
        """Delete what a closed page had uploaded."""
        self._sessions.close(str(request.session_hash))

    def stop(self, request: gr.Request) -> None:
        """Stop the work of a page."""
        self.open(request).stop.set()


def file_paths(component: Any) -> Any:
    """Let the functions of an upload get the paths of its files, a list, and nothing else.

    Gradio's File would leave a temporary file, and its Video needs the program ffmpeg. The method
    is replaced instead of overridden, because Gradio writes a stub file beside each subclass.
    """

    def preprocess(payload: Any) -> list[str]:
        files = getattr(payload, "root", [payload] if payload else [])
        return [file.path for file in files]

    component.preprocess = preprocess
    return component


def failed(error: BaseException) -> Status:
    """Return the status that shows an error as one sentence."""
    return Status(explain(error), kind="failed")
