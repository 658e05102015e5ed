"""Who may name what on the page, and what is kept for how long."""

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from i3dzoo.app import Settings
from i3dzoo.app.models import Models, check_path
from i3dzoo.app.sessions import Sessions
from i3dzoo.cli.app import command
from i3dzoo.errors import OptionError, OutputError


def test_all_sessions_together_have_a_bound(tmp_path: Path) -> None:
    """A disk is not filled by many uploads."""
    sessions = Sessions(tmp_path, most=3 << 20, keep_seconds=60)
    (sessions.open("a").folder / "video" / "x").write_bytes(bytes(2 << 20))
    sessions.check_room(1 << 20)
    with pytest.raises(OutputError, match="at most 3 MiB at once, and 2 MiB are in use"):
        sessions.check_room((1 << 20) + 1)


def test_sessions_end_and_their_files_are_deleted(tmp_path: Path) -> None:
    """A new video replaces the one before, and pages without use end."""
    sessions = Sessions(tmp_path, most=1 << 20, keep_seconds=60)
    for name in ("first.mp4", "second.mp4"):
        (received := sessions.uploads / "digest" / name).parent.mkdir(exist_ok=True)
        received.write_bytes(b"video")
        sessions.open("a").set_video(received, uploaded=True)
    session = sessions.open("a")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["second.mp4"]
    assert sessions.file(session.token, "second.mp4") is None  # an upload itself is not served
    session.shown("clip.mp4").write_bytes(b"clip")
    assert sessions.file(session.token, "clip.mp4") == session.shown("clip.mp4")
    assert sessions.file("guessed", "clip.mp4") is None
    sessions.open("b")
    sessions.keep_seconds = -1
    sessions.expire()
    assert not session.folder.exists()
    assert session.stop.is_set()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("pc", False)],  # noqa: S104 - it is not bound
)
def test_files_may_be_named_on_loopback_only(host: str, local: bool, tmp_path: Path) -> None:
    """Other people may choose models of the zoo and of the Hub, and no file."""
    settings = Settings(host=host)
    assert settings.local is local
    if local:
        assert check_path(str(tmp_path), "runs", settings) == tmp_path
        return
    with pytest.raises(OptionError, match=f"runs of this machine cannot be named .* on {host}"):
        check_path(str(tmp_path), "runs", settings)
    (tmp_path / "x.safetensors").touch()
    for name in (tmp_path / "x.safetensors", f"{tmp_path}/x.safetensors#part", "../x"):
        with pytest.raises(OptionError, match="files of this machine cannot be named"):
            Models(settings).load(str(name))


def test_a_port_in_use_is_explained() -> None:
    """The message says how to choose another one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(command, ["--port", str(port)])
    assert isinstance(result.exception, OptionError)
    assert "the port is in use; choose another with --port" in str(result.exception)
