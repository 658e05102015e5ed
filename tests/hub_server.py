"""A Hub on loopback: the protocol of huggingface_hub for models, with LFS and a storage host.

Large files are redirected to another origin (`localhost` for `127.0.0.1`), as the Hub does, and a
token that is sent there fails the request: it would have leaked. Addresses there are signed, and
are refused without the signature. Requests of a client that takes
this server for its proxy are answered too.
"""

import base64
import contextlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from .hub_state import LFS_SUFFIXES, File, Hub, RefusalError, Repository, User

__all__ = ["SIGNATURE", "Hub", "User", "serve"]

_CHUNK = 1 << 20
_NAME = r"(?P<name>[^/]+/[^/]+?)"
_REVISION = r"(?P<revision>[^/]+)"
_OID = r"(?P<oid>[0-9a-f]{64})"
SIGNATURE = "signature=hf_signed"
_ROUTES = [
    ("GET", "/api/whoami-v2", "whoami"),
    ("GET", "/api/models", "list"),
    ("POST", "/api/repos/create", "create"),
    ("POST", "/api/validate-yaml", "validate"),
    ("GET", f"/api/models/{_NAME}(?:/revision/{_REVISION})?", "info"),
    ("GET", f"/api/models/{_NAME}/refs", "refs"),
    ("POST", f"/api/models/{_NAME}/tag/{_REVISION}", "tag"),
    ("POST", f"/api/models/{_NAME}/preupload/{_REVISION}", "preupload"),
    ("POST", f"/api/models/{_NAME}/commit/{_REVISION}", "commit"),
    ("POST", f"/{_NAME}[.]git/info/lfs/objects/batch", "batch"),
    ("PUT", f"/_lfs/{_OID}", "upload"),
    ("GET", f"/_cdn/{_OID}", "blob"),
    ("GET", f"/{_NAME}/resolve/{_REVISION}/(?P<path>.+)", "resolve"),
]
_PATTERNS = [(method, re.compile(pattern), action) for method, pattern, action in _ROUTES]


class Request(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def handle(self) -> None:
        """Handle a connection, whose other end may be gone at any time."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""

    def route(self) -> None:
        """Find what is asked for and do it."""
        url = urlsplit(self.path)  # a proxy is asked for whole addresses
        self.query = parse_qs(url.query)
        self.unread = int(self.headers.get("Content-Length") or 0)
        self.hub.log.append((self.command, self.path, self.headers["Range"]))
        method = "GET" if self.command == "HEAD" else self.command
        try:
            self.user = self.authenticate(url.path)
            for verb, pattern, action in reversed(_PATTERNS):
                found = pattern.fullmatch(url.path)
                if verb == method and found:
                    named = {key: unquote(text) for key, text in found.groupdict("").items()}
                    getattr(self, f"do_{action}")(**named)
                    return
            raise RefusalError(404, f"no route {self.command} {url.path}")
        except RefusalError as refusal:
            headers = {"X-Error-Message": refusal.message}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            self.answer({"error": refusal.message}, refusal.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = route  # noqa: N815 - http.server calls these names

    def authenticate(self, path: str) -> User | None:
        """Return whose token came; one that comes to the storage host has leaked."""
        header = self.headers["Authorization"]
        if path.startswith(("/_cdn", "/_lfs")) and not self.path.endswith(f"?{SIGNATURE}"):
            raise RefusalError(403, "the address is not signed")
        if header is None:
            return None
        if path.startswith(("/_cdn", "/_lfs")):
            raise RefusalError(400, "a token was sent to the storage host")
        user = self.hub.users.get(header.removeprefix("Bearer "))
        if user is None:
            raise RefusalError(401, "Invalid credentials in Authorization header")
        return user

    def body(self) -> Iterator[bytes]:
        """Yield what was sent."""
        while self.unread:
            chunk = self.rfile.read(min(_CHUNK, self.unread))
            if not chunk:
                raise ConnectionResetError("the client went away")
            self.unread -= len(chunk)
            yield chunk

    def document(self) -> Any:
        """Return the JSON that was sent."""
        return json.loads(b"".join(self.body()) or b"{}")

    def answer(
        self, document: Any, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        """Send JSON."""
        for _ in self.body():
            """What is left unread would be taken for the next request."""
        content = json.dumps(document).encode()
        self.head(status, {"Content-Type": "application/json", **(headers or {})}, len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def head(self, status: int, headers: dict[str, str], length: int) -> None:
        """Send status and headers."""
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def repository(self, name: str, write: bool = False) -> Repository:
        """Return a repository that the user may see, or write to."""
        found = self.hub.repositories.get(name)
        own = self.user is not None and found is not None and self.user.name == found.owner
        if found is None or (found.private and not own):
            raise RefusalError(404 if self.user else 401, "Repository not found", "RepoNotFound")
        if write and self.user is None:
            raise RefusalError(401, "Invalid username or password.")
        if write and not (own and self.user and self.user.writes):
            raise RefusalError(403, "Forbidden: you must use a write token to upload.")
        return found

    def do_whoami(self) -> None:
        """Say whose token this is."""
        if self.user is None:
            raise RefusalError(401, "Invalid username or password.")
        self.answer({"type": "user", "name": self.user.name, "orgs": []})

    def do_create(self) -> None:
        """Make a repository; one that exists is a conflict that says where it is."""
        wanted = self.document()
        if self.user is None:
            raise RefusalError(401, "Invalid username or password.")
        name = f"{wanted.get('organization') or self.user.name}/{wanted['name']}"
        if not self.user.writes or name.partition("/")[0] != self.user.name:
            raise RefusalError(403, "You don't have the rights to create a model there")
        url = f"{self.hub.address}/{name}"
        with self.hub.lock:
            if name in self.hub.repositories:
                self.answer({"error": "You already created this repo", "url": url}, 409)
                return
            self.hub.create(name, private=wanted.get("visibility") == "private")
        self.answer({"url": url, "name": name})

    def do_validate(self) -> None:
        """Check the front matter of a card."""
        try:
            front_matter(self.document()["content"])
        except (ValueError, yaml.YAMLError) as error:
            self.answer({"errors": [{"message": str(error)}], "warnings": []}, 400)
        else:
            self.answer({"errors": [], "warnings": []})

    def describe(self, repository: Repository, revision: str = "main") -> dict[str, Any]:
        """Return what the Hub tells of a repository."""
        name = repository.resolve(revision)
        tree = repository.commits[name].tree
        card: dict[str, Any] = {}
        if "README.md" in tree:
            card = front_matter(self.hub.blob(tree["README.md"].sha256).read_text("utf-8"))
        siblings = [
            {"rfilename": path, **(entry(file) if "blobs" in self.query else {})}
            for path, file in sorted(tree.items())
        ]
        return {
            "id": repository.name,
            "sha": name,
            "private": repository.private,
            "gated": repository.gated,
            "lastModified": "2026-01-02T03:04:05.000Z",
            "downloads": 7,
            "tags": [*card.get("tags", []), *filter(None, [card.get("library_name")])],
            "cardData": card or None,
            "siblings": siblings,
        }

    def do_info(self, name: str, revision: str) -> None:
        """Describe one repository."""
        self.answer(self.describe(self.repository(name), revision or "main"))

    def do_list(self) -> None:
        """Describe the repositories of an author that have a tag and may be seen."""
        author, tags = self.query["author"][0], set(self.query.get("filter", []))
        found = []
        for repository in self.hub.repositories.values():
            seen = not repository.private or (self.user and self.user.name == repository.owner)
            if repository.owner == author and seen:
                document = self.describe(repository)
                if tags <= set(document["tags"]):
                    found.append(document)
        self.answer(found)

    def do_refs(self, name: str) -> None:
        """List branches and tags."""
        repository = self.repository(name)
        listed = {
            kind: [
                {"name": ref, "ref": f"refs/{path}/{ref}", "targetCommit": commit}
                for ref, commit in refs.items()
            ]
            for kind, path, refs in (
                ("branches", "heads", repository.branches),
                ("tags", "tags", repository.tags),
            )
        }
        self.answer({**listed, "converts": []})

    def do_tag(self, name: str, revision: str) -> None:
        """Name a commit."""
        repository = self.repository(name, write=True)
        tag = self.document()["tag"]
        if tag in repository.tags:
            raise RefusalError(409, f"Reference already exists: {tag}")
        repository.tags[tag] = repository.resolve(revision)
        self.answer({})

    def do_preupload(self, name: str, revision: str) -> None:
        """Say which files go to LFS, and which are there already."""
        repository = self.repository(name, write=True)
        tree = repository.commits[repository.resolve(revision)].tree
        files = []
        for file in self.document()["files"]:
            path, old = file["path"], tree.get(file["path"])
            mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
            known = {"oid": old.sha256 if old.lfs else old.git} if old else {}
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **known})
        self.answer({"files": files})

    def do_batch(self, name: str) -> None:
        """Say where to send the blobs that are not stored yet."""
        self.repository(name, write=True)
        objects = []
        for wanted in self.document()["objects"]:
            each = {"oid": wanted["oid"], "size": wanted["size"]}
            if not self.hub.blob(wanted["oid"]).exists():
                href = f"{self.hub.address}/_lfs/{wanted['oid']}?{SIGNATURE}"
                each["actions"] = {"upload": {"href": href}}
            objects.append(each)
        self.answer({"transfer": "basic", "objects": objects})

    def do_upload(self, oid: str) -> None:
        """Take a blob; if uploads are held, stop half way; be busy first, if that is wanted."""
        if self.hub.busy:
            self.hub.busy -= 1
            raise RefusalError(503, "Please come back later.")
        half = self.unread // 2

        def chunks() -> Iterator[bytes]:
            for chunk in self.body():
                yield chunk
                if self.hub.hold and self.unread < half:
                    self.hub.held.set()
                    self.hub.go_on.wait(30)

        self.hub.store(chunks(), oid)
        self.answer({})

    def do_commit(self, name: str, revision: str) -> None:
        """Make a commit of files that are sent along, and of blobs that were sent before."""
        repository = self.repository(name, write=True)
        if self.hub.barrier:
            self.hub.barrier.wait(30)
        lines = [json.loads(line) for line in b"".join(self.body()).splitlines()]
        with self.hub.lock:
            if revision not in repository.branches:
                raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            tree, header = dict(repository.tree), {}
            for line in lines:
                value = line["value"]
                match line["key"]:
                    case "header":
                        header = value
                    case "file":
                        content = base64.b64decode(value["content"])
                        tree[value["path"]] = self.hub.regular(content)
                    case "lfsFile":
                        if not self.hub.blob(value["oid"]).exists():
                            raise RefusalError(400, f"{value['path']} was never uploaded")
                        tree[value["path"]] = self.hub.large(value["oid"])
                    case "deletedFile":
                        del tree[value["path"]]
            if header.get("parentCommit") not in (None, repository.head):
                raise RefusalError(
                    412, "A commit has happened since. Please refresh and try again."
                )
            made = self.hub.commit(repository, tree, header["summary"], repository.owner)
        url = f"{self.hub.address}/{name}/commit/{made}"
        self.answer({"success": True, "commitOid": made, "commitUrl": url, "hookOutput": ""})

    def do_resolve(self, name: str, revision: str, path: str) -> None:
        """Send a file, or say where in the storage it is."""
        repository = self.repository(name)
        if repository.gated and (self.user is None or self.user.name != repository.owner):
            raise RefusalError(403 if self.user else 401, "Access is restricted.", "GatedRepo")
        commit = repository.resolve(revision)
        file = repository.commits[commit].tree.get(path)
        if file is None:
            raise RefusalError(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{file.sha256 if file.lfs else file.git}"'}
        if not file.lfs:
            self.send_blob(file.sha256, headers)
            return
        headers["X-Linked-ETag"] = f'"{file.sha256}"'
        headers["X-Linked-Size"] = str(file.size)
        storage = f"http://localhost:{self.server.server_port}"
        headers["Location"] = f"{storage}/_cdn/{file.sha256}?{SIGNATURE}"
        self.answer({}, 302, headers)

    def do_blob(self, oid: str) -> None:
        """Be the storage host."""
        self.send_blob(oid, {"ETag": f'"{oid}"'})

    def send_blob(self, oid: str, headers: dict[str, str]) -> None:
        """Send a blob or a range of it, cut or corrupt if that is wanted."""
        content = self.hub.blob(oid).read_bytes()
        if self.command == "GET" and self.hub.flip.get(oid):
            self.hub.flip[oid] -= 1
            content = content[:-1] + bytes([content[-1] ^ 1])
        size, start = len(content), 0
        found = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if found:
            start = int(found.group(1))
            headers = {**headers, "Content-Range": f"bytes {start}-{size - 1}/{size}"}
        self.head(206 if found else 200, {**headers, "Accept-Ranges": "bytes"}, size - start)
        if self.command == "HEAD":
            return
        cuts = self.hub.cut.get(oid)
        end = cuts.pop(0) if cuts else size
        self.wfile.write(content[start:end])
        self.close_connection = end < size


def front_matter(text: str) -> dict[str, Any]:
    """Return the YAML at the top of a card."""
    found = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    document = yaml.safe_load(found.group(1)) if found else {}
    if not isinstance(document, dict):
        raise ValueError("the metadata is no mapping")
    return document


def entry(file: File) -> dict[str, Any]:
    """Return how the Hub lists a file."""
    lfs = {"lfs": {"sha256": file.sha256, "size": file.size, "pointerSize": 130}}
    return {"size": file.size, "blobId": file.git, **(lfs if file.lfs else {})}


@contextlib.contextmanager
def serve(root: Path) -> Iterator[Hub]:
    """Run a Hub in a thread while the block runs."""
    hub = Hub(root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Request,), {"hub": hub}))
    server.daemon_threads = True
    server.block_on_close = False
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
