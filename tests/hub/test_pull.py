"""Pull with the real client of the Hub, in child processes, from a Hub on loopback."""

import hashlib
import json
import re
import sys
from pathlib import Path

import pytest
from helpers import loopback
from helpers.hub_home import ALICE, NAME, READER, STRANGER, Home, constants, match, pull, steps
from helpers.hub_server import Hub
from helpers.published import FILE, make

from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.checkpoints.history import HistoryStep
from i3dzoo.checkpoints.labels import labels
from i3dzoo.checkpoints.metadata import Source
from i3dzoo.hub import Package
from i3dzoo.zoo.match import tensor_checksums

WEIGHTS = "model.safetensors"
LOAD = """
import os, sys
from pathlib import Path
import i3dzoo
from i3dzoo import hub

import i3dzoo.network.i3d
assert "huggingface_hub.constants" not in sys.modules
name = sys.argv[1]
model = i3dzoo.load(name)
print(type(model).__name__, model.num_classes, model.labels[1], model.metadata.input.crop)
same = i3dzoo.InceptionI3d.from_pretrained(name, revision="main")
print(all((a == b).all() for a, b in zip(model.parameters(), same.parameters())))

model.Conv3d_1a_7x7.bn.bias.data += 1
print(model.push_to_hub("alice/mine", private=True, tag="v1", token=sys.argv[2]))
back = i3dzoo.InceptionI3d.from_pretrained("alice/mine", token=sys.argv[2])
print(float(back.Conv3d_1a_7x7.bn.bias[0]))
model.save_pretrained("saved")
print(sorted(os.listdir("saved")))
print(float(i3dzoo.InceptionI3d.from_pretrained("saved").Conv3d_1a_7x7.bn.bias[0]))

def flip(path):
    path = path.resolve()
    status = path.stat()
    path.write_bytes(path.read_bytes().replace(b"cartwheel", b"cartwheal"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

folder = hub.pull(hub.parse(name)).folder
flip(folder / "config.json")
flip(Path("saved/labels.txt"))
for attempt in (
    lambda: i3dzoo.load(name, verify=True),
    lambda: i3dzoo.InceptionI3d.from_pretrained(name, verify=True),
    lambda: i3dzoo.InceptionI3d.from_pretrained("saved"),
    lambda: i3dzoo.InceptionI3d.from_pretrained("alice/none"),
    lambda: i3dzoo.InceptionI3d().push_to_hub("alice/bare"),
):
    try:
        print(attempt())
    except i3dzoo.I3DZooError as error:
        print(type(error).__name__, error)
"""


@pytest.fixture
def weights(package: Package) -> str:
    """The sha256 of the published weights."""
    return {name: digest for name, _, digest in package.files}[WEIGHTS]


def blobs(home: Home) -> set[str]:
    """Return the names of the blobs in the Hub's cache."""
    return {path.name for path in (home.folder / "hf" / "hub").glob("*/blobs/*")}


def test_revisions(hub: Hub, home: Home, published: str, package: Package) -> None:
    """A branch, a tag, a commit and a file can be pulled; missing ones are errors."""
    repository = hub.repositories[NAME]
    repository.tags["v1"] = published
    second = hub.commit(repository, repository.tree, "second", "alice")
    cases = {
        NAME: second,
        f"{NAME}@v1": published,
        f"hf://{NAME}@{published}": published,
        f"hf://models/{NAME}@v1/config.json": published,
        f"{hub.address}/{NAME}/resolve/v1/config.json?download=true": published,
        f"{hub.address}/{NAME}/blob/{published}/labels.txt": published,
        f"{NAME}@v2": r"FetchError: alice/i3d@v2: has no such branch, tag or commit \(HTTP 404\)",
        f"hf://{NAME}/other.pt": r"FetchError: hf://alice/i3d/other.pt: has no file other.pt",
        "alice/none": r"FetchError: alice/none: .* has no such repository, or it is private",
    }
    match(steps(home, *map(pull, cases)), *cases.values())
    assert (home.snapshot(published) / WEIGHTS).is_file()
    assert blobs(home) >= {digest for name, _, digest in package.files if name == WEIGHTS}
    size = next(size for name, size, _ in package.files if name == WEIGHTS)
    limits = (1000, size, size + 1_000_000)
    lines = steps(home, *(pull(max_size=limit, force=True) for limit in limits))
    match(
        lines,
        rf"FetchError: alice/i3d: {WEIGHTS} has {size} bytes, expected at most 1000; .*--max-size",
        rf"alice/i3d: has 6 files of \d+ bytes, expected at most 1000 files of {size} bytes; .*"
        "--max-size allows more, and hf://alice/i3d/FILE",
        second,
    )


def test_who_may_read(hub: Hub, home: Home, published: str) -> None:
    """The errors for private, gated and unknown repositories say what to do."""
    private = hub.create("alice/secret", private=True)
    gated = hub.create("alice/gated", gated=True)
    for repository in (private, gated):
        hub.commit(repository, hub.repositories[NAME].tree, "files", "alice")
    cases = [
        (False, "alice/secret", r"no such repository, or it is private \(HTTP 401\): check the"),
        (STRANGER, "alice/secret", r"no such repository, or it is private \(HTTP 404\)"),
        (READER, "alice/secret", private.head),
        (False, "alice/gated", r"is gated \(HTTP 401\): request access on its page at 127"),
        (STRANGER, "alice/gated", r"is gated \(HTTP 403\): request access on its page"),
        (ALICE, "alice/gated", gated.head),
        ("hf_nobody", NAME, r"rejects the token \(HTTP 401\); log in with `hf auth login`"),
        (None, NAME, published),
    ]
    lines = steps(home, *(pull(name, token=token) for token, name, _ in cases))
    match(lines, *(expected for _, _, expected in cases))


def test_cut_download_is_resumed(hub: Hub, home: Home, published: str, weights: str) -> None:
    """A download resumes after a lost connection, and is given up after six."""
    hub.cut[weights] = [10] * 6
    error = home.fails("pull", NAME)
    assert re.search(rf"{WEIGHTS}: 127.* cut .* at 10 of \d+ bytes, 6 times in a row", error)
    assert not (home.snapshot(published) / WEIGHTS).exists()
    hub.log.clear()
    hub.cut[weights] = [15_000_000]
    done = home.ok("pull", NAME)
    assert read_checkpoint(done.stdout.strip()).metadata.num_classes == 51
    assert "resuming the download" in done.stderr
    first, second = hub.ranges(weights)
    assert first == "bytes=10-"  # what the first command received
    assert re.fullmatch(r"bytes=1\d{7}-", second or "")
    assert not any(".incomplete" in name for name in blobs(home))
    assert published in done.stdout


def test_corrupt_download_is_fetched_again(
    hub: Hub, home: Home, published: str, weights: str
) -> None:
    """A corrupt download, which the Hub's client does not notice, is downloaded again."""
    hub.flip[weights] = 1
    done = home.ok("pull", NAME)
    assert f"alice/i3d: {WEIGHTS} has sha256:" in done.stderr
    assert f"expected sha256:{weights}, as the Hub lists it" in done.stderr
    assert "fetching it again" in done.stderr
    assert published in done.stdout
    assert hub.flip[weights] == 0


def test_corrupt_source_is_named_and_left(
    hub: Hub, home: Home, published: str, weights: str
) -> None:
    """A download that is corrupt twice is an error, and is removed from the cache."""
    hub.flip[weights] = 2
    error = home.fails("pull", NAME)
    assert re.search(rf"{WEIGHTS} has sha256:\w+, expected sha256:{weights}", error)
    assert weights not in blobs(home)
    assert not (home.snapshot(published) / WEIGHTS).exists()


def test_flipped_byte_in_the_cache(home: Home, published: str, weights: str) -> None:
    """A flipped byte in the Hub's cache is found on every pull."""
    folder = home.snapshot(published)
    lines = steps(
        home,
        pull(),
        ("flip", folder / "labels.txt", {}),
        pull(verify=True),
        pull(verify=True, offline=True),
        pull(force=True),
        pull(verify=True),
        ("flip", folder / WEIGHTS, {"at": 20_000_000}),
        pull(verify=True),
    )
    match(
        lines,
        published,
        r"ChecksumError: alice/i3d: labels.txt has git-blob:.* pull alice/i3d --force downloads",
        "ChecksumError: alice/i3d: labels.txt has git-blob:",
        published,
        published,
        rf"ChecksumError: alice/i3d: {WEIGHTS} has sha256:\w+, expected sha256:{weights}",
    )
    assert weights in home.fails("verify", NAME)
    assert f"{WEIGHTS} has sha256:" in home.ok("pull", NAME).stderr


def test_changed_file_in_the_cache(home: Home, published: str) -> None:
    """A cached file that was changed is downloaded again."""
    path = home.snapshot(published) / "config.json"
    change = ("write", path, {"text": "{}"})
    lines = steps(home, pull(), change, pull(), change, pull(offline=True))
    match(
        lines,
        published,
        "config.json has git-blob:.*; fetching it again",
        published,
        "ChecksumError: .*config.json has git-blob:",
    )
    assert json.loads(path.read_text()) == {}


def test_files_of_another_program_are_verified(
    home: Home, published: str, package: Package
) -> None:
    """A file that another program put into the Hub's cache is verified."""
    names = [name for name, _, _ in package.files]
    code = f"from huggingface_hub import *\nfor name in {names}: hf_hub_download({NAME!r}, name)"
    home.ok("-c", code)
    path = home.snapshot(published) / "labels.txt"
    lines = steps(home, ("flip", path, {}), pull(offline=True), pull())
    match(
        lines,
        "ChecksumError: alice/i3d: labels.txt has git-blob:",
        "labels.txt has git-blob:.*; fetching it again",
        published,
    )


def test_offline(hub: Hub, home: Home, published: str) -> None:
    """The cache is used offline, and with a message when the Hub cannot be reached."""
    lines = steps(home, pull(offline=True), pull(), pull(offline=True))
    lacking = "OfflineError: alice/i3d: is not in the Hub's cache, and the network was not allowed"
    match(lines, lacking, published, published)
    count = len(hub.log)
    lines = steps(home, pull("alice/other"), pull(), HF_ENDPOINT="http://127.0.0.1:9")
    away = r"127.0.0.1:9 cannot be reached or cut the connection \(ConnectError\)"
    cached = f"{away}.*; using the cached commit {published[:8]}"
    match(lines, f"UnreachableError: alice/other: {away}", cached, published)
    assert len(hub.log) == count


def test_altered_repository(hub: Hub, home: Home, published: str) -> None:
    """A file that was changed on the Hub without SHA256SUMS is refused, except the card."""
    repository = hub.repositories[NAME]
    readme = hub.regular(b"---\nlicense: mit\n---\n# Edited\n")
    edited = hub.commit(repository, {**repository.tree, "README.md": readme}, "edit", "alice")
    labels = hub.regular(b"one\ntwo\n")
    hub.commit(repository, {**repository.tree, "labels.txt": labels}, "edit", "alice")
    empty = hub.create("alice/empty")
    lines = steps(
        home,
        pull(f"{NAME}@{edited}"),
        pull(),
        pull(f"{NAME}@{published}"),
        pull(empty.name),
    )
    match(
        lines,
        edited,
        f"labels.txt has sha256:{labels.sha256}, expected .*, as SHA256SUMS lists it",
        published,
        "has no model.safetensors, so it was not made by i3dzoo; name one of its files",
    )


VICTIM = "../../../../victim/notes.txt"  # from the folder of the blobs, or of a snapshot
COMMIT, DIGITS = "expected 40 hexadecimal digits", "expected 40 or 64 hexadecimal digits"
INSIDE = "expected a path inside of the repository, found "
LABELS = "the Hub's answer: the file 'labels.txt'"
LIES: list[tuple[dict[str, object], str]] = [
    ({"sha": VICTIM}, f"the Hub's answer: sha: {COMMIT}, found '{VICTIM}'"),
    ({"sha": "0" * 40 + "\n"}, f"the Hub's answer: sha: {COMMIT}, found '000"),
    ({"sha": 7}, f"the Hub's answer: sha: {COMMIT}, found 7"),
    ({"sha": None}, f"the Hub's answer: sha: {COMMIT}, found null"),
    ({"siblings": 7}, "the Hub's answer: siblings: expected a list, found 7"),
    ({"siblings": ["a"]}, "the Hub's answer: siblings[0]: expected a mapping, found 'a'"),
    *(
        (
            {"rfilename": name},
            f"the Hub's answer: the file {str(name)!r}: rfilename: {INSIDE}{name!r}",
        )
        for name in (VICTIM, "/etc/x", "a//b", "a/..", "..\\x", "C:x", "a\0b", "", 7)
    ),
    ({"size": -1}, f"{LABELS}: size: expected an integer of 0 or more, found -1"),
    ({"size": "8"}, f"{LABELS}: size: expected an integer of 0 or more, found '8'"),
    ({"blobId": VICTIM}, f"{LABELS}: blobId: {COMMIT}, found '{VICTIM}'"),
    (
        {"lfs": {"sha256": VICTIM}},
        f"{LABELS}: lfs.sha256: expected 64 hexadecimal digits, found '{VICTIM}'",
    ),
    ({"ETag": f'"{VICTIM}"'}, f"labels.txt: the header ETag: {DIGITS}, found '{VICTIM}'"),
    ({"X-Linked-ETag": VICTIM}, f"labels.txt: the header ETag: {DIGITS}, found '{VICTIM}'"),
    ({"X-Repo-Commit": VICTIM}, f"labels.txt: the header X-Repo-Commit: expected {'C' * 40}"),
    ({"X-Linked-Size": 9}, "labels.txt: the header size: expected 377 as listed, found '9'"),
    (
        {"size": 99, "X-Linked-Size": 99},
        "labels.txt: offers 377 bytes, expected 99",
    ),
]


def test_lying_server_reaches_nothing_outside(hub: Hub, home: Home, published: str) -> None:
    """A server that lies in any field is refused by name, and nothing outside is touched."""
    victim = home.folder / "victim" / "notes.txt"
    victim.parent.mkdir()
    victim.write_text("mine")
    for number, (lies, _) in enumerate(LIES):
        repository = hub.create(f"alice/lie{number}")
        hub.lies[repository.name] = lies
        hub.commit(repository, hub.repositories[NAME].commits[published].tree, "files", "alice")
    before = outside(home)
    names = [f"alice/lie{number}" for number in range(len(LIES))]
    lines = steps(home, *(pull(name, force=True) for name in names))
    for name, line, (_, expected) in zip(names, lines, LIES, strict=True):
        expected = expected.replace("C" * 40, hub.repositories[name].head)
        assert line.startswith(f"FetchError: {name}: {expected}")
    etag = next(number for number, (lies, _) in enumerate(LIES) if "ETag" in lies)
    for number in (0, etag):
        assert LIES[number][1] in home.fails("pull", f"alice/lie{number}")
    assert victim.read_text() == "mine"
    assert outside(home) == before


def outside(home: Home) -> dict[Path, int]:
    """Return the files outside of the Hub's cache, and when each was changed."""
    caches = {home.folder / "hf", home.folder / "i3dzoo"}
    paths = (path for path in home.folder.parent.rglob("*") if not caches & {*path.parents, path})
    return {path: path.lstat().st_mtime_ns for path in paths if path.is_file()}


def test_removal_follows_no_link(home: Home, published: str, hub: Hub) -> None:
    """A link in the cache that leads out of it is removed itself when its file is corrupt."""
    victim = home.folder / "notes.txt"
    victim.write_text("mine")
    snapshot = home.snapshot(published)
    blob = snapshot.parents[1] / "blobs" / hub.repositories[NAME].tree["labels.txt"].git
    for link in (snapshot / "labels.txt", blob):
        link.parent.mkdir(parents=True)
        link.symlink_to(victim)
    match(steps(home, pull()), "labels.txt has git-blob:.*; fetching it again", published)
    assert victim.read_text() == "mine"
    assert (snapshot / "labels.txt").resolve() == blob
    assert not blob.is_symlink()


def test_list_of_a_user(hub: Hub, home: Home, published: str, package: Package) -> None:
    """The i3dzoo repositories of a user are listed, private ones for the owner only."""
    other = hub.create("alice/other")
    card = b"---\nlibrary_name: timm\n---\n"
    hub.commit(other, {"README.md": hub.regular(card)}, "card", "alice")
    secret = hub.create("alice/secret", private=True)
    hub.put(secret, package.folder)
    listed = home.ok("list", "--hub", "alice")
    heading, line = listed.stdout.splitlines()
    assert heading.split()[0] == "repository"
    assert line.split() == ["alice/i3d", "rgb", "hmdb51", "apache-2.0", "2026-01-02"]
    assert "Next: i3dzoo pull alice/i3d" in listed.stderr
    rows = json.loads(home.ok("list", "--hub", "alice", "--json", HF_TOKEN=ALICE).stdout)
    assert [(row["repository"], row["private"]) for row in rows] == [
        ("alice/i3d", False),
        ("alice/secret", True),
    ]
    assert "alice has no" not in listed.stderr
    assert "alice/i3d: is not the name of a user" in home.fails("list", "--hub", "alice/i3d")
    assert published


def test_proxy(hub: Hub, home: Home, published: str) -> None:
    """The proxy of the environment is used for all requests."""
    proxy = {"HTTP_PROXY": hub.address, "HF_ENDPOINT": "http://hub.invalid"}
    code = f"from i3dzoo import hub; print(hub.pull(hub.parse('hf://{NAME}/config.json')).commit)"
    done = home.ok("-c", code, **proxy)
    assert done.stdout.strip() == published
    assert all(path.startswith("http://hub.invalid/") for _, path, _ in hub.log)


def test_python(hub: Hub, home: Home, published: str) -> None:
    """The Python API loads, verifies and pushes, with the Hub's model mixin too."""
    done = home.ok("-c", LOAD, NAME, ALICE)
    lines = [line for line in done.stdout.splitlines() if line]
    mine = hub.repositories["alice/mine"]
    assert lines[0] == "InceptionI3d 51 cartwheel 224"
    assert lines[1] == "True"
    assert lines[2] == f"{hub.address}/alice/mine/commit/{mine.tags['v1']}"
    assert mine.private
    assert lines[3] == "1.5"
    assert "model.safetensors" in lines[4]
    assert lines[5] == "1.5"
    assert lines[6].startswith("ChecksumError alice/i3d: config.json has git-blob:")
    assert lines[7].startswith("ChecksumError alice/i3d: config.json has git-blob:")
    assert lines[8].startswith("ChecksumError saved/labels.txt: has sha256 ")
    assert lines[9].startswith("FetchError alice/none: ")
    assert lines[10].startswith("MetadataError the model has no metadata")
    assert published


MIRROR = """
[[sources]]
kind = "hub"
title = "A mirror"
layout = "canonical"
licence = "MIT"
repository = "alice/i3d"
revision = "main"
file = "model.safetensors"
max_size = 60000000
"""
PULL_MANIFEST = """
import sys
from pathlib import Path
from i3dzoo import zoo
from i3dzoo.cli.progress import show_progress
from i3dzoo.fetch.pull import pull_manifest

with show_progress() as progress:
    print(pull_manifest(zoo.load_manifest(Path(sys.argv[1])), progress=progress))
"""


def test_mirror_needs_no_trust(hub: Hub, home: Home, tmp_path: Path) -> None:
    """A Hub source of a manifest is accepted if its tensors match, otherwise the next is tried."""
    published = make(tmp_path)
    repository = hub.create(NAME)
    other = write_checkpoint(tmp_path / "other.safetensors", constants())
    good, bad = (hub.store([content])[0] for content in (published.weights, other.read_bytes()))
    wrong = hub.commit(repository, {WEIGHTS: hub.large(bad)}, "other weights", "alice")
    hub.commit(repository, {WEIGHTS: hub.large(good)}, "the weights", "alice")
    hub.flip[good] = 2
    with loopback.serve() as site:
        published.serve(site)
        manifest = published.manifest(tmp_path, site, "file")
        mirrors = f"{MIRROR.replace('main', wrong).replace('A mirror', 'A liar')}{MIRROR}"
        manifest.write_text(manifest.read_text().replace("[[sources]]", f"{mirrors}[[sources]]", 1))
        done = home.ok("-c", PULL_MANIFEST, manifest)
        for text in (
            f"rgb_test: from A liar ({hub.address[7:]})",
            "230 of 230 tensors differ from those of rgb_test",
            f"rgb_test: A mirror: hf://alice/i3d/{WEIGHTS}: {WEIGHTS} has sha256:",
            "rgb_test: from The file (127.0.0.1:",
        ):
            assert text in done.stderr
        assert site.ranges(FILE) == [None]
        path = Path(done.stdout.strip())
        path.unlink()
        done = home.ok("-c", PULL_MANIFEST, manifest)
        assert "The file" not in done.stderr
        assert tensor_checksums(read_checkpoint(path).tensors) == published.crcs


def test_mirror_cannot_describe_the_network(hub: Hub, home: Home, tmp_path: Path) -> None:
    """Scales that have no checksum are compared, and what the file says of itself is not used."""
    published = make(tmp_path)
    (tmp_path / "x.safetensors").write_bytes(published.weights)
    honest = read_checkpoint(tmp_path / "x.safetensors")
    scale = "Mixed_5c.Branch_0.Conv3d_0a_1x1.bn.weight"
    scaled = Checkpoint({**honest.tensors, scale: honest.tensors[scale] * 2}, honest.metadata)
    lies = honest.metadata.replace(
        labels=tuple(f"class {number}" for number in range(51)),
        input=honest.metadata.input.replace(mean=(0.0, 0.0, 0.0)),
        variant=honest.metadata.variant.replace(epsilon=0.5),
        multi_label=True,
        history=(HistoryStep(operation="finetune", base_model="bob/i3d", dataset="ucf101"),),
        source=Source("deepmind", "1" * 64),
    )
    lying = Checkpoint(honest.tensors, lies)
    repository, manifest = hub.create(NAME), tmp_path / "rgb_test.toml"
    sources = ""
    for number, checkpoint in enumerate((scaled, lying)):
        content = write_checkpoint(tmp_path / f"{number}.safetensors", checkpoint).read_bytes()
        tree = {WEIGHTS: hub.large(hub.store([content])[0])}
        sources += MIRROR.replace("main", hub.commit(repository, tree, "weights", "alice"))
    with loopback.serve() as site:
        published.manifest(tmp_path, site)
    manifest.write_text(manifest.read_text().replace("[crc32c]", f"{sources}\n[crc32c]"))
    done = home.ok("-c", PULL_MANIFEST, manifest)
    assert f"1 BatchNorm scales are not 1, unlike those of rgb_test: {scale}" in done.stderr
    metadata = read_checkpoint(done.stdout.strip()).metadata
    assert metadata.labels == labels("hmdb51")
    assert metadata.input.mean == (0.5, 0.5, 0.5)
    assert metadata.variant == honest.metadata.variant
    assert (metadata.multi_label, metadata.history) == (False, ())
    assert metadata.source.layout == "canonical"
    assert metadata.source.sha256 == hashlib.sha256(content).hexdigest()


def test_unreachable_hub_is_the_only_source(home: Home, tmp_path: Path) -> None:
    """When the only source is an unreachable Hub, the error says how to bring a file."""
    with loopback.serve() as site:
        manifest = make(tmp_path).manifest(tmp_path, site)
    manifest.write_text(manifest.read_text().replace("[crc32c]", f"{MIRROR}\n[crc32c]"))
    done = home.run("-c", PULL_MANIFEST, manifest, HF_ENDPOINT="http://127.0.0.1:9")
    *_, message = done.stderr.splitlines()
    assert message.startswith("i3dzoo.errors.UnreachableError: rgb_test: ")
    assert "127.0.0.1:9 cannot be reached" in message
    assert "i3dzoo pull rgb_test --file FILE" in message


MEASURED = """
import sys
from i3dzoo.cli import main

try:
    main(sys.argv[1:])
finally:
    with open("/proc/self/status") as file:
        print(next(line for line in file if line.startswith("VmHWM:")), file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_large_files_take_little_memory(hub: Hub, home: Home, tmp_path: Path) -> None:
    """Pushing and pulling 60 MB takes less than 150 MB of memory."""
    checkpoint = constants(classes=19_000)
    file = write_checkpoint(tmp_path / "large.safetensors", checkpoint)
    assert file.stat().st_size > 60_000_000
    pushed = home.ok("-c", MEASURED, "push", file, NAME, HF_TOKEN=ALICE)
    assert hub.repositories[NAME].tree[WEIGHTS].size > 60_000_000
    pulled = home.ok("-c", MEASURED, "pull", NAME)
    for done in (pushed, pulled):
        peak = int(re.search(r"VmHWM:\s*(\d+) kB", done.stderr).group(1))  # type: ignore[union-attr]
        assert peak < 150_000
