"""A Hub that lies in every field: each command ends with one sentence, and nothing is touched."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.hub_home import ALICE, NAME, Home, Shell
from helpers.hub_server import Hub
from huggingface_hub import constants

from i3dzoo.hub import session
from i3dzoo.hub.client import http_library

NESTED: Any = json.loads("[" * 900 + "]" * 900)
VALUES: tuple[Any, ...] = (7, None, "x", [], {}, True, -1, 10**300, [7], ["x"], "\ud800", NESTED)
BODIES = (
    *(json.dumps(value).encode() for value in VALUES),
    b"",
    b"\xff",
    b"{",
    b"[" * 200_000,
    b"9" * 5000,
    b'{"a": 1e999}',
    b'{"x": "' + b"x" * (17 << 20) + b'"}',
)
HREF = ("objects", 0, "actions", "upload", "href")
# what each command asks the Hub for: the action, and the keys of its answer
PULL = {"info": (("sha",), ("siblings",), ("siblings", 0, "rfilename"), ("siblings", 0, "size"))}
LIST = {
    "list": (
        (0,),
        *((0, key) for key in ("id", "tags", "private", "downloads", "lastModified", "cardData")),
        (0, "cardData", "model-index"),
        (0, "cardData", "license"),
    )
}
PUSH = {
    "create": (("url",),),
    "info": (("sha",), ("siblings",), ("private",)),
    "validate": (("errors",), ("warnings",)),
    "refs": (("tags",), ("tags", 0, "name"), ("tags", 0, "targetCommit")),
    "preupload": (
        ("files",),
        *(("files", 0, key) for key in ("path", "uploadMode", "shouldIgnore", "oid")),
    ),
    "batch": (
        ("objects",),
        ("transfer",),
        *(("objects", 0, key) for key in ("oid", "size", "actions", "error")),
        ("objects", 0, "actions", "upload"),
        HREF,
        ("objects", 0, "actions", "upload", "header"),
        ("objects", 0, "actions", "verify"),
    ),
    "commit": (("commitOid",), ("commitUrl",)),
    "tag": (("x",),),
}


def replace(document: Any, path: tuple[str | int, ...], value: Any) -> bytes:
    """Return a document with another value at a path."""
    *folders, last = path
    place = document
    for key in folders:
        place = place[key]
    place[last] = value
    return json.dumps(document).encode()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A small file, and one in LFS."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / "confusion_matrix.png").write_bytes(b"\x89PNG")
    return folder


@pytest.fixture
def shell(hub: Hub, home: Home, published: str) -> Iterator[Shell]:
    """A child process with a token, on a Hub with a repository and a tag."""
    hub.repositories[NAME].tags["v0"] = published
    with home.shell(HF_TOKEN=ALICE) as shell:
        yield shell


def check(result: tuple[int, str, str]) -> str:
    """Check that a command succeeded, or failed with one sentence; return standard error."""
    code, out, err = result
    assert code in (0, 1), (code, err)
    assert "Traceback" not in err
    if code:
        assert out == ""
        assert err.splitlines()[-1].startswith("i3dzoo: alice"), err
        assert len(err) < 2500
    return err


@pytest.mark.parametrize("command", ["pull", "list", "push"])
def test_every_field(hub: Hub, shell: Shell, files: Path, command: str) -> None:
    """Each body and each key of an answer, in turn, is of another type or value."""
    call: Callable[[], tuple[int, str, str]] = {
        "pull": lambda: shell("pull", NAME),
        "list": lambda: shell("list", "--hub", "alice"),
        "push": lambda: shell("push files", files, NAME, "v1"),
    }[command]
    number = 0
    for action, paths in {"pull": PULL, "list": LIST, "push": PUSH}[command].items():
        lies: list[Any] = [*BODIES[number % 3 :: 3]]  # a third of them, for the sake of time
        lies += [
            lambda document, path=path, value=value: replace(document, path, value)
            for turn, path in enumerate(paths)
            for value in VALUES[turn % 4 :: 4]
        ]
        for lie in lies:
            number += 1
            (files / "confusion_matrix.png").write_bytes(b"\x89PNG %d" % number)
            hub.repositories[NAME].tags.pop("v1", None)
            hub.replies = {action: lie}
            check(call())
    assert hub.leaks == []
    hub.replies = {}
    hub.repositories[NAME].tags.pop("v1", None)
    code, _, err = call()
    assert code == 0, err


@pytest.mark.parametrize(
    ("action", "path", "value", "message"),
    [
        ("create", ("url",), "ftp://x", "url: expected an http(s) address, found 'ftp://x'"),
        ("info", ("sha",), 7, "sha: expected 40 hexadecimal digits, found 7"),
        (
            "refs",
            ("tags", 0, "targetCommit"),
            "../x",
            "tags[0].targetCommit: expected 40 hexadecimal digits, found '../x'",
        ),
        (
            "preupload",
            ("files", 0, "uploadMode"),
            "x",
            "files[0].uploadMode: expected lfs or regular, found 'x'",
        ),
        ("preupload", ("files", 0, "shouldIgnore"), True, "leaves out README.md; change it"),
        (
            "batch",
            HREF,
            "file:///etc/x",
            "href: expected an http(s) address, found 'file:///etc/x'",
        ),
        (
            "commit",
            ("commitOid",),
            "../x",
            "commitOid: expected 40 hexadecimal digits, found '../x'",
        ),
    ],
)
def test_the_field_is_named(
    hub: Hub,
    shell: Shell,
    files: Path,
    action: str,
    path: tuple[str | int, ...],
    value: object,
    message: str,
) -> None:
    """The error names the answer, the key, what was expected, and what was found."""
    hub.replies = {action: lambda document: replace(document, path, value)}
    code, _, err = shell("push files", files, NAME, "v1")
    assert code == 1
    assert f"{NAME}: the Hub's answer" in err
    assert message in err


def test_token_stays_on_the_hub(hub: Hub, shell: Shell, files: Path) -> None:
    """The token is not sent to another host: not to verify an upload, not for the next page."""
    other = hub.address.replace("127.0.0.1", "localhost")
    verify = {"href": f"{other}/api/verify"}
    hub.replies["batch"] = lambda document: replace(
        document, ("objects", 0, "actions", "verify"), verify
    )
    assert "no such" in check(shell("push files", files, NAME, "v1")) or hub.requests("verify")
    assert hub.requests("/api/verify") == ["POST /api/verify"]
    hub.headers["list"] = {"Link": f'<{other}/api/models?author=alice&cursor=2>; rel="next"'}
    assert "alice: the Hub's answer: the list has more than 20 pages" in check(
        shell("list", "--hub", "alice")
    )
    assert len(hub.requests("cursor=2")) == 19
    assert hub.leaks == []


def test_compressed_answer(hub: Hub, shell: Shell, files: Path) -> None:
    """An answer that was compressed, and could expand without bound, is refused."""
    hub.headers["commit"] = {"Content-Encoding": "gzip"}
    error = check(shell("push files", files, NAME, "v1"))
    assert "/commit/main: is compressed, which was not requested" in error


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://mirror.example/api/models/a/b", True),
        ("https://mirror.example:443/a/b", True),
        ("http://mirror.example/a/b", False),
        ("https://mirror.example:8443/a/b", False),
        ("https://mirror.example.evil.example/a/b", False),
        ("https://mirror.example@evil.example/a/b", False),
    ],
)
def test_host_of_the_token(monkeypatch: pytest.MonkeyPatch, url: str, sent: bool) -> None:
    """The token goes to the scheme, host and port of HF_ENDPOINT, and nowhere else."""
    monkeypatch.setattr(constants, "ENDPOINT", "https://user@Mirror.example:443")
    agent = f"{session.AGENT['library_name']}/{session.AGENT['library_version']}"
    fields = {"Authorization": "Bearer x", "User-Agent": f"{agent}; hf_hub/2"}
    request = http_library().Request("GET", url, headers=fields)
    session._check_request(request)
    assert ("Authorization" in request.headers) == sent


def test_busy_for_days(hub: Hub, shell: Shell, files: Path) -> None:
    """A server that asks to wait for days is not waited for."""
    for header in ("864000", '"api";r=0;t=864000'):
        hub.wait, hub.busy = header, 1
        assert "asks to wait 864000 s; try again" in check(shell("push files", files, NAME, "v1"))


def test_list_with_results(hub: Hub, shell: Shell) -> None:
    """The first result of a card is listed; other forms of cards are left out."""
    repository = hub.create("alice/results")
    card = """---
library_name: i3dzoo
license: mit
datasets: hmdb51
model-index:
- name: x
  results:
  - dataset: {name: HMDB51, type: hmdb51}
    metrics: [{type: accuracy, value: 74.3}]
---
"""
    hub.commit(repository, {"README.md": hub.regular(card.encode())}, "card", "alice")
    _, out, _ = shell("list", "--hub", "alice", "--json")
    row = next(row for row in json.loads(out) if row["repository"] == "alice/results")
    assert (row["top1"], row["dataset"], row["licence"], row["datasets"]) == (
        74.3,
        "HMDB51",
        "mit",
        ["hmdb51"],
    )
