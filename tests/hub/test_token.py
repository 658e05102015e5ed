"""A Hub that echoes the token of a request wherever it can: it is never printed."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from helpers import http_server
from helpers.hub_home import ALICE, Home
from helpers.hub_server import Hub

ENCODINGS = {
    "plain": lambda text: text,
    "header": lambda text: f"Authorization: Bearer {text}",
    "percent": lambda text: "".join(f"%{ord(character):02X}" for character in text),
    "base64": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
    "long": lambda text: f"{'x' * 70}{text}",  # a message that quotes 80 characters cuts it
}
PLACES = ("message", "body", "text", "reason", "redirect", "etag", "warning", "listing", "retry")


class Echo(http_server.Handler):
    """Answers a request for `/…/PLACE-ENCODING…` with the token at that place."""

    def answer(self) -> None:
        """Echo the token."""
        secret = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        path = urlsplit(self.path).path
        place = next((place for place in PLACES if f"{place}-" in self.path), "text")
        encoding = next((name for name in ENCODINGS if f"-{name}" in self.path), "plain")
        echo = ENCODINGS[encoding](secret)
        headers, status, body = {}, 400, b""
        if place == "message":
            headers = {"X-Error-Message": echo, "X-Request-Id": echo}
        elif place == "body":
            body = json.dumps({"error": echo, "errors": [{"message": echo}]}).encode()
        elif place == "text":
            body = echo.encode()
        elif place == "redirect" and "/gone" not in path:
            status, headers = 302, {"Location": f"/gone/redirect-{encoding}/{echo}?{echo}={echo}"}
        elif place == "etag":
            status, headers = 200, {"ETag": f'"{echo}"', "X-Repo-Commit": echo}
            body = json.dumps({"sha": "0" * 40, "siblings": [LISTED], "url": echo}).encode()
        elif place == "warning":
            headers = {"X-HF-Warning": f"{echo}; {echo}"}
        elif place == "listing":
            status, body = 200, json.dumps({"sha": echo, echo: echo, "url": echo}).encode()
            if "author=" in self.path:
                model = {
                    "id": f"a/{echo}",
                    "tags": ["rgb", echo],
                    "cardData": {"license": echo},
                }
                body = json.dumps([model]).encode()
        elif place == "retry":
            status, headers = 400, {"Retry-After": echo, "Content-Encoding": echo}
        if place == "reason":
            self.send_response(status, echo)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.head(status, headers, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = answer  # noqa: N815 - http.server calls these names


LISTED = {"rfilename": "model.safetensors", "size": 1, "blobId": "0" * 40}


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Home]:
    """A computer that uses the echoing Hub."""
    with http_server.serve(Echo) as address:
        yield Home(tmp_path, Hub(tmp_path, address=address), ALICE)


def test_token_is_never_printed(echo: Home, tmp_path: Path) -> None:
    """No output has the token in any encoding, with --debug and the logs of the client too."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "config.json").write_text("{}")
    names = [f"{place}-{encoding}" for place in PLACES for encoding in ENCODINGS]
    logs = {"HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug"}
    shown = ""
    with echo.shell(**logs) as shell:
        for name in names:
            for arguments in (
                ("pull", f"alice/{name}"),
                ("--debug", "pull", f"alice/{name}"),
                ("--debug", "list", "--hub", name),
                ("push files", files, f"alice/{name}", "v1"),
            ):
                code, out, err = shell(*arguments)
                assert code == 1 or arguments[1] == "list", err
                assert ("Traceback" in err) == (code == 1 and arguments[0] == "--debug"), err
                shown += out + err
    shown += echo.log
    for encoding, encode in ENCODINGS.items():
        assert encode(ALICE)[-14:] not in shown, encoding
        assert encode(ALICE).lower()[-14:] not in shown, encoding
    assert "<hidden>" in shown
    assert "Request " in echo.log  # the client did log
