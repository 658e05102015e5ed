"""A Hub on loopback: the protocol of huggingface_hub for models, with LFS and a storage host.

Large files are redirected to another origin (`localhost` for `127.0.0.1`), as the Hub does. A token
that is sent there has leaked and fails the request. Addresses there are signed, and are refused
without the signature. The server also answers clients that use it as a proxy.
"""

import base64
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from helpers import http_server
from helpers.http_server import Handler
from helpers.hub_state import LFS_SUFFIXES, File, Hub, RefusalError, Repository, User

_CHUNK = 1 << 20
_NAME = r"(?P<name>[^/]+/[^/]+?)"
_REVISION = r"(?P<revision>[^/]+)"
_OID = r"(?P<oid>[0-9a-f]{64})"
FILE_KEYS = {"rfilename", "size", "blobId", "lfs"}
SIGNATURE = "signature=hf_signed"
_ROUTES = [
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
    ("GET", f"/api/datasets/{_NAME}(?:/revision/{_REVISION})?", "info"),
    ("GET", f"/datasets/{_NAME}/resolve/{_REVISION}/(?P<path>.+)", "resolve"),
]
_PATTERNS = [(method, re.compile(pattern), action) for method, pattern, action in _ROUTES]


class Request(Handler):
    """One request."""

    hub: Hub

    def route(self) -> None:
        """Handle a request by its route."""
        url = urlsplit(self.path)  # a proxy gets whole addresses
        self.query = parse_qs(url.query)
        self.unread = int(self.headers.get("Content-Length") or 0)
        self.action = ""
        if self.headers["Authorization"] and self.headers["Host"] not in self.hub.address:
            self.hub.leaks.append(self.path)
        self.hub.log.append((self.command, self.path, self.headers["Range"]))
        method = "GET" if self.command == "HEAD" else self.command
        try:
            self.user = self.authenticate(url.path)
            for verb, pattern, action in reversed(_PATTERNS):
                match = pattern.fullmatch(url.path)
                if verb == method and match:
                    self.action = action
                    groups = {key: unquote(text) for key, text in match.groupdict("").items()}
                    getattr(self, f"do_{action}")(**groups)
                    return
            raise RefusalError(404, f"no route {self.command} {url.path}")
        except RefusalError as refusal:
            headers = {"X-Error-Message": refusal.message}
            if refusal.status == 503 and self.hub.wait:
                headers["RateLimit" if ";" in self.hub.wait else "Retry-After"] = self.hub.wait
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            self.answer({"error": refusal.message}, refusal.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = route  # noqa: N815 - http.server calls these names

    def authenticate(self, path: str) -> User | None:
        """Return the user of the token; a token at the storage host has leaked."""
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
        """Yield the body of the request."""
        while self.unread:
            chunk = self.rfile.read(min(_CHUNK, self.unread))
            if not chunk:
                raise ConnectionResetError("the client went away")
            self.unread -= len(chunk)
            yield chunk

    def document(self) -> Any:
        """Return the JSON in the body of the request."""
        return json.loads(b"".join(self.body()) or b"{}")

    def answer(
        self, document: Any, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        """Send JSON."""
        for _ in self.body():
            """Read the rest of the body, so that it is not taken for the next request."""
        content = json.dumps(document).encode()
        if self.action in self.hub.replies and status in (200, 409):
            reply = self.hub.replies[self.action]
            content = reply(document) if callable(reply) else reply
        headers = {**(headers or {}), **self.hub.headers.get(self.action, {})}
        self.head(status, {"Content-Type": "application/json", **headers}, len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def repository(self, name: str, write: bool = False) -> Repository:
        """Return a repository that the user may read, or write."""
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self.owns(repository)):
            raise RefusalError(404 if self.user else 401, "Repository not found", "RepoNotFound")
        if write and not (self.signed_in().writes and self.owns(repository)):
            raise RefusalError(403, "Forbidden: you must use a write token to upload.")
        return repository

    def owns(self, repository: Repository) -> bool:
        """Return whether the user owns a repository."""
        return self.user is not None and self.user.name == repository.owner

    def signed_in(self) -> User:
        """Return the user, or refuse the request."""
        if self.user is None:
            raise RefusalError(401, "Invalid username or password.")
        return self.user

    def do_create(self) -> None:
        """Create a repository; an existing one is a conflict with its address."""
        wanted, user = self.document(), self.signed_in()
        name = f"{wanted.get('organization') or user.name}/{wanted['name']}"
        if not user.writes or name.partition("/")[0] != user.name:
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
        """Return the Hub's description of a repository."""
        name = repository.resolve(revision)
        tree = repository.commits[name].tree
        card: dict[str, Any] = {}
        if "README.md" in tree:
            card = front_matter(self.hub.blob(tree["README.md"].sha256).read_text("utf-8"))
        siblings = [
            {"rfilename": path, **(entry(file) if "blobs" in self.query else {})}
            for path, file in sorted(tree.items())
        ]
        lies = self.hub.lies.get(repository.name, {})
        for sibling in siblings:
            if sibling["rfilename"] == "labels.txt":
                sibling.update((key, lies[key]) for key in FILE_KEYS & set(lies))
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
            **{key: lies[key] for key in {"sha", "siblings"} & set(lies)},
        }

    def do_info(self, name: str, revision: str) -> None:
        """Describe one repository."""
        self.answer(self.describe(self.repository(name), revision or "main"))

    def do_list(self) -> None:
        """Describe the visible repositories of an author with a tag."""
        author, tags = self.query["author"][0], set(self.query.get("filter", []))
        documents = [
            self.describe(repository)
            for repository in self.hub.repositories.values()
            if repository.owner == author and (not repository.private or self.owns(repository))
        ]
        self.answer([document for document in documents if tags <= set(document["tags"])])

    def do_refs(self, name: str) -> None:
        """List branches and tags."""
        repository = self.repository(name)
        listed: dict[str, list[dict[str, str]]] = {"converts": []}
        for kind, path in (("branches", "heads"), ("tags", "tags")):
            listed[kind] = [
                {"name": ref, "ref": f"refs/{path}/{ref}", "targetCommit": commit}
                for ref, commit in getattr(repository, kind).items()
            ]
        self.answer(listed)

    def do_tag(self, name: str, revision: str) -> None:
        """Create a tag."""
        repository = self.repository(name, write=True)
        tag = self.document()["tag"]
        if tag in repository.tags:
            raise RefusalError(409, f"Reference already exists: {tag}")
        repository.tags[tag] = repository.resolve(revision)
        self.answer({})

    def do_preupload(self, name: str, revision: str) -> None:
        """List which files go to LFS, and which exist."""
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
        """Return upload addresses for the missing blobs."""
        self.repository(name, write=True)
        objects = []
        for wanted in self.document()["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if not self.hub.blob(wanted["oid"]).exists():
                href = f"{self.hub.address}/_lfs/{wanted['oid']}?{SIGNATURE}"
                entry["actions"] = {"upload": {"href": href}}
            objects.append(entry)
        self.answer({"transfer": "basic", "objects": objects})

    def do_upload(self, oid: str) -> None:
        """Store a blob; with `busy`, refuse first; with `hold`, stop half way."""
        if self.hub.busy:
            self.hub.busy -= 1
            raise RefusalError(503, "Please come back later.")
        half = self.unread // 2

        def chunks() -> Iterator[bytes]:
            for chunk in self.body():
                yield chunk
                if self.hub.hold and self.unread < half:
                    self.hub.held.set()
                    self.hub.released.wait(30)

        self.hub.store(chunks(), oid)
        self.answer({})

    def do_commit(self, name: str, revision: str) -> None:
        """Create a commit of inline files and of uploaded blobs."""
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
                raise RefusalError(412, "A commit has happened since. Please refresh.")
            commit = self.hub.commit(repository, tree, header["summary"], repository.owner)
        url = f"{self.hub.address}/{name}/commit/{commit}"
        self.answer({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def do_resolve(self, name: str, revision: str, path: str) -> None:
        """Send a file, or redirect to the storage host."""
        repository = self.repository(name)
        if repository.gated and not self.owns(repository):
            raise RefusalError(403 if self.user else 401, "Access is restricted.", "GatedRepo")
        commit = repository.resolve(revision)
        file = repository.commits[commit].tree.get(path)
        if file is None:
            raise RefusalError(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{file.sha256 if file.lfs else file.git}"'}
        if path == "labels.txt":
            lies = self.hub.lies.get(name, {})
            headers |= {key: str(lies[key]) for key in lies if key[0].isupper()}
        if not file.lfs:
            self.send_blob(file.sha256, headers)
            return
        headers["X-Linked-ETag"] = f'"{file.sha256}"'
        headers["X-Linked-Size"] = str(file.size)
        storage = self.hub.address.replace("127.0.0.1", "localhost")
        headers["Location"] = f"{storage}/_cdn/{file.sha256}?{SIGNATURE}"
        self.answer({}, 302, headers)

    def do_blob(self, oid: str) -> None:
        """Answer as the storage host."""
        self.send_blob(oid, {"ETag": f'"{oid}"'})

    def send_blob(self, oid: str, headers: dict[str, str]) -> None:
        """Send a blob or a range of it; with `cut` or `flip`, incompletely or corrupt."""
        content = self.hub.blob(oid).read_bytes()
        if self.command == "GET" and self.hub.flip.get(oid):
            self.hub.flip[oid] -= 1
            content = content[:-1] + bytes([content[-1] ^ 1])
        size, start = len(content), self.requested_start()
        if start is not None:
            headers = {**headers, "Content-Range": f"bytes {start}-{size - 1}/{size}"}
        status, start = (200, 0) if start is None else (206, start)
        self.head(status, {**headers, "Accept-Ranges": "bytes"}, size - start)
        if self.command == "HEAD":
            return
        cuts = self.hub.cut.get(oid)
        end = cuts.pop(0) if cuts else size
        self.wfile.write(content[start:end])
        self.close_connection = end < size


def front_matter(text: str) -> dict[str, Any]:
    """Return the YAML at the top of a card."""
    match = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    document = yaml.safe_load(match[1]) if match else {}
    if not isinstance(document, dict):
        raise ValueError("the metadata is not a mapping")
    return document


def entry(file: File) -> dict[str, Any]:
    """Return how the Hub lists a file."""
    lfs = {"lfs": {"sha256": file.sha256, "size": file.size, "pointerSize": 130}}
    return {"size": file.size, "blobId": file.git, **(lfs if file.lfs else {})}


@contextlib.contextmanager
def serve(root: Path) -> Iterator[Hub]:
    """Run a Hub while the block runs."""
    hub = Hub(root)
    with http_server.serve(type("HubRequest", (Request,), {"hub": hub})) as hub.address:
        try:
            yield hub
        finally:
            hub.released.set()
