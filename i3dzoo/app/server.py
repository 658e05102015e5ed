"""Serve the page: on loopback, within limits, and with nothing that comes from elsewhere."""

import errno
import os
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from i3dzoo.app.sessions import Sessions
from i3dzoo.app.settings import Settings
from i3dzoo.app.view import asset
from i3dzoo.devices import choose_device
from i3dzoo.errors import DependencyError, OptionError, OutputError

# Gradio evaluates templates, and loads its tool to trim recordings from a blob.
_POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "font-src 'self' data:",
        "connect-src 'self' blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
_HEADERS: Final = (
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

_SCRIPT: Final = "/i3dzoo/app.js"
_PATHS: Final = ("/", "/config", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json")
_FOLDERS: Final = ("/assets/", "/static/", "/svelte/", "/session/", "/i3dzoo/")
_API: Final = (
    *("cancel", "config", "heartbeat/", "info", "queue/data", "queue/join", "reset", "run/"),
    *("startup-events", "theme.css", "upload", "upload_progress", "file="),
)
_UPLOAD: Final = "/gradio_api/upload"
_FILE: Final = "/gradio_api/file="
_OVERHEAD: Final = 1 << 20  # bytes around the files of an upload
_EXPIRE: Final = 60.0  # seconds between two looks for sessions that are not used any more

# Gradio reads these when it is imported, and when a page is made.
_ENVIRONMENT: Final = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """Refuses requests from other sites, unknown paths and large uploads; adds the policy.

    A page on the web can send requests to loopback. Its name of the host or its origin gives it
    away, and neither its scripts nor a name that leads to 127.0.0.1 reach the page.
    """

    def __init__(self, app: App, settings: Settings, sessions: Sessions) -> None:
        self._app, self._settings, self._sessions = app, settings, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if refusal := self._refuse(scope["path"], headers):
            from starlette.responses import JSONResponse

            status, text = refusal
            await JSONResponse({"detail": text}, status)(scope, receive, send)
            return
        own = scope["path"].startswith("/session/")

        async def answer(event: MutableMapping[str, Any]) -> None:
            if event["type"] == "http.response.start":
                policy = "sandbox allow-scripts; frame-ancestors 'self'" if own else _POLICY
                event["headers"] = [
                    *event.get("headers", ()),
                    *_HEADERS,
                    (b"content-security-policy", policy.encode()),
                ]
            await send(event)

        await self._app(scope, receive, answer)

    def _refuse(self, path: str, headers: dict[bytes, str]) -> tuple[int, str] | None:
        """Return the status and the reason if a request is not answered."""
        host = headers.get(b"host", "")
        origin = headers.get(b"origin")
        if self._settings.local and urlsplit(f"//{host}").hostname not in {
            "localhost",
            "127.0.0.1",
            "::1",
            self._settings.host,
        }:
            return 403, f"{host}: the page is at {self._settings.host}"
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, f"{origin}: only the page itself may send requests"
        if not _known(path):
            return 404, f"{path}: not a part of the page"
        if path.startswith(_FILE) and not self._is_upload(path.removeprefix(_FILE)):
            return 404, "the file was deleted"
        return self._refuse_upload(headers) if path.rstrip("/") == _UPLOAD else None

    def _is_upload(self, file: str) -> bool:
        """Whether this is a file that Gradio received, and that is still there."""
        return Path(file).is_file() and Path(file).resolve().is_relative_to(self._sessions.uploads)

    def _refuse_upload(self, headers: dict[bytes, str]) -> tuple[int, str] | None:
        length = headers.get(b"content-length", "")
        if not length.isdecimal():
            return 411, "an upload without a length is not accepted"
        if int(length) > self._settings.max_upload + _OVERHEAD:
            return 413, (
                f"the upload has {int(length) >> 20} MiB; the page takes at most "
                f"{self._settings.max_upload >> 20} MiB: start i3dzoo app with --max-upload"
            )
        try:
            self._sessions.check_room(int(length))
        except OutputError as error:
            return 507, str(error)
        return None


def _known(path: str) -> bool:
    if path in _PATHS or path.startswith(_FOLDERS):
        return True
    rest = path.removeprefix("/gradio_api/")
    return rest != path and any(
        rest == name or (name[-1] in "/=" and rest.startswith(name)) for name in _API
    )


def build(settings: Settings, sessions: Sessions) -> Any:
    """Return the ASGI application.

    Raises:
        DependencyError: Gradio is not installed.
    """
    os.environ |= {**_ENVIRONMENT, "GRADIO_TEMP_DIR": str(sessions.uploads)}
    try:
        import gradio
        from fastapi import FastAPI
        from starlette.responses import FileResponse, Response
    except ImportError as error:
        raise DependencyError("the page needs Gradio: pip install 'i3dzoo[app]'") from error
    from i3dzoo.app.page import build_page, theme

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get(_SCRIPT)
    def script() -> Response:
        return Response(asset("app.js"), media_type="text/javascript")

    @app.get("/session/{token}/{name}")
    def file(token: str, name: str) -> Response:
        path = sessions.file(token, name)
        return Response(status_code=404) if path is None else FileResponse(path)

    gradio.mount_gradio_app(
        app,
        build_page(settings, sessions),
        "/",
        server_name=settings.host,
        server_port=settings.port,
        footer_links=[],
        run_history=False,
        show_error=True,
        max_file_size=settings.max_upload,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=theme(),
        css=asset("app.css"),
        js=f"() => import('{_SCRIPT}')",
    )
    return Guard(app, settings, sessions)


def bind(settings: Settings) -> socket.socket:
    """Return a socket that listens on the address of the settings.

    Raises:
        OptionError: The address is not of this machine, or the port is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, OverflowError) as error:
        raise OptionError(f"{settings.host}: is not an address of this machine: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            reason = "the port is in use; choose another with --port, or --port 0 for any free one"
        raise OptionError(f"{settings.host}, port {settings.port}: {reason}") from error
    listener.listen()
    return listener


@contextmanager
def open_server(settings: Settings) -> Iterator[tuple[Any, socket.socket, str]]:
    """Yield a server, its socket, and the address of the page; uploads are deleted at the end."""
    import uvicorn

    with bind(settings) as listener, tempfile.TemporaryDirectory(prefix="i3dzoo-app-") as folder:
        root = Path(folder).resolve()
        sessions = Sessions(root, settings.max_stored, settings.keep_seconds)
        config = uvicorn.Config(
            build(settings, sessions),
            log_level="error",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        with _expiring(sessions):
            yield uvicorn.Server(config), listener, f"http://{host}:{listener.getsockname()[1]}/"


@contextmanager
def _expiring(sessions: Sessions) -> Iterator[None]:
    """End unused sessions while the block runs."""
    ended = threading.Event()

    def expire() -> None:
        while not ended.wait(_EXPIRE):
            sessions.expire()

    thread = threading.Thread(target=expire, daemon=True, name="i3dzoo-app-expire")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def serve(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve the page until the process is interrupted; `ready` gets its address.

    Raises:
        I3DZooError: The address cannot be used, there is no such device, or Gradio is not
            installed.
    """
    choose_device(settings.device)
    try:
        import uvicorn  # noqa: F401 - says early that the extra is missing
    except ImportError as error:
        raise DependencyError("the page needs Gradio: pip install 'i3dzoo[app]'") from error
    with open_server(settings) as (server, listener, address):
        ready(address)
        server.run([listener])
