"""Pulling by the real client of the Hub, in child processes, from a Hub of our own."""

import json
import re
import sys
from pathlib import Path

import pytest

from i3dzoo.checkpoint import read_checkpoint, write_checkpoint
from i3dzoo.fingerprint import tensor_crcs
from i3dzoo.hub import Package

from . import loopback
from .hub_home import ALICE, NAME, READER, STRANGER, Home, constants, match, pull, steps
from .hub_server import Hub
from .published import FILE, make

WEIGHTS = "model.safetensors"
LOAD = """
import os, sys
from pathlib import Path
import i3dzoo
from i3dzoo import hub

import i3dzoo.model
assert "huggingface_hub" not in sys.modules
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
    """A branch, a tag, a commit and a file can each be named; what the Hub lacks is said."""
    repository = hub.repositories[NAME]
    repository.tags["v1"] = published
    second = hub.commit(repository, repository.tree, "second", "alice")
    cases = {
        NAME: second,
        f"{NAME}@v1": published,
        f"hf://{NAME}@{published}": published,
        f"hf://models/{NAME}@v1/config.json": published,
        f"{NAME}@v2": r"FetchError: alice/i3d@v2: has no such branch, tag or commit \(HTTP 404\)",
        f"hf://{NAME}/other.pt": r"FetchError: hf://alice/i3d/other.pt: has no file other.pt",
        "alice/none": r"FetchError: alice/none: .* has no such repository, or it is private",
    }
    match(steps(home, *map(pull, cases)), *cases.values())
    assert (home.snapshot(published) / WEIGHTS).is_file()
    assert blobs(home) >= {digest for name, _, digest in package.files if name == WEIGHTS}
    limit = steps(home, pull(max_size=1000, force=True))
    match(limit, rf"FetchError: alice/i3d: {WEIGHTS} has \d+ bytes, expected at most 1000")


def test_who_may_read(hub: Hub, home: Home, published: str) -> None:
    """Private, gated and unknown: each refusal says what to do, and the owner may read."""
    private = hub.create("alice/secret", private=True)
    gated = hub.create("alice/gated", gated=True)
    for repository in (private, gated):
        hub.commit(repository, hub.repositories[NAME].tree, "files", "alice")
    cases = [
        (False, "alice/secret", r"no such repository, or it is private \(HTTP 401\): check the"),
        (STRANGER, "alice/secret", r"no such repository, or it is private \(HTTP 404\)"),
        (READER, "alice/secret", private.head),
        (False, "alice/gated", r"is gated \(HTTP 401\): ask for access on its page at 127"),
        (STRANGER, "alice/gated", r"is gated \(HTTP 403\): ask for access on its page"),
        (ALICE, "alice/gated", gated.head),
        ("hf_nobody", NAME, r"does not know the token \(HTTP 401\); log in with `hf auth login`"),
        (None, NAME, published),
    ]
    lines = steps(home, *(pull(name, token=token) for token, name, _ in cases))
    match(lines, *(expected for _, _, expected in cases))


def test_cut_download_is_resumed(hub: Hub, home: Home, published: str, weights: str) -> None:
    """A connection that is cut in the middle is gone on with where it was."""
    hub.cut[weights] = [15_000_000]
    done = home.ok("pull", NAME)
    assert read_checkpoint(done.stdout.strip()).metadata.num_classes == 51
    assert re.search(r"localhost:\d+: cut the connection \(.*\); going on where it", done.stderr)
    first, second = hub.ranges(weights)
    assert first is None
    assert re.fullmatch(r"bytes=1\d{7}-", second or "")
    assert published in done.stdout


def test_corrupt_download_is_fetched_again(
    hub: Hub, home: Home, published: str, weights: str
) -> None:
    """A byte that flips on the way, which the Hub's client does not see, is seen and mended."""
    hub.flip[weights] = 1
    done = home.ok("pull", NAME)
    assert f"alice/i3d: {WEIGHTS} has sha256 " in done.stderr
    assert f"expected {weights} as the Hub lists it" in done.stderr
    assert "fetching it again" in done.stderr
    assert published in done.stdout
    assert hub.flip[weights] == 0


def test_corrupt_source_is_named_and_left(
    hub: Hub, home: Home, published: str, weights: str
) -> None:
    """What comes corrupt twice is an error that names the file; it stays in no cache."""
    hub.flip[weights] = 2
    error = home.fails("pull", NAME)
    assert re.search(rf"{WEIGHTS} has sha256 \w+, expected {weights} as the Hub lists it", error)
    assert weights not in blobs(home)
    assert not (home.snapshot(published) / WEIGHTS).exists()


def test_flipped_byte_in_the_cache(home: Home, published: str, weights: str) -> None:
    """A byte that flips in the Hub's cache is found when it is looked for, and fetched anew."""
    folder = home.snapshot(published)
    lines = steps(
        home,
        pull(),
        ("flip", folder / "labels.txt", {}),
        pull(),  # nothing tells that a disk flipped a byte, unless it is looked for
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
        published,
        r"ChecksumError: alice/i3d: labels.txt has git-blob .* pull alice/i3d --force fetches it",
        "ChecksumError: alice/i3d: labels.txt has sha256 ",
        published,
        published,
        rf"ChecksumError: alice/i3d: {WEIGHTS} has sha256 \w+, expected {weights}",
    )
    assert weights in home.fails("verify", NAME)
    assert "has CRC32C" in home.fails("pull", NAME)  # the weights have checksums of their own


def test_changed_file_in_the_cache(home: Home, published: str) -> None:
    """A cached file that was written to is noticed by its time of change, and fetched again."""
    path = home.snapshot(published) / "config.json"
    change = ("write", path, {"text": "{}"})
    lines = steps(home, pull(), change, pull(), change, pull(offline=True))
    match(
        lines,
        published,
        "config.json has git-blob .*; fetching it again",
        published,
        "ChecksumError: .*config.json has sha256",
    )
    assert json.loads(path.read_text()) == {}


def test_files_of_another_program_are_verified(
    home: Home, published: str, package: Package
) -> None:
    """What another program put into the Hub's cache is verified before it is used."""
    names = [name for name, _, _ in package.files]
    code = f"from huggingface_hub import *\nfor each in {names}: hf_hub_download({NAME!r}, each)"
    home.ok("-c", code)
    path = home.snapshot(published) / "labels.txt"
    lines = steps(home, ("flip", path, {}), pull(offline=True), pull())
    match(
        lines,
        "ChecksumError: alice/i3d: labels.txt has git-blob ",
        "labels.txt has git-blob .*; fetching it again",
        published,
    )


def test_offline(hub: Hub, home: Home, published: str) -> None:
    """Offline the cache serves; what it lacks is said; an unreachable Hub is the same, aloud."""
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
    """A file that was changed on the Hub without its digest is refused; the card may change."""
    repository = hub.repositories[NAME]
    readme = hub.regular(b"---\nlicense: mit\n---\n# Edited\n")
    edited = hub.commit(repository, {**repository.tree, "README.md": readme}, "edit", "alice")
    labels = hub.regular(b"one\ntwo\n")
    hub.commit(repository, {**repository.tree, "labels.txt": labels}, "edit", "alice")
    outside = hub.commit(repository, {**repository.tree, "../../x": labels}, "edit", "alice")
    empty = hub.create("alice/empty")
    lines = steps(
        home,
        pull(f"{NAME}@{outside}", everything=True),
        pull(f"{NAME}@{edited}"),
        pull(),
        pull(f"{NAME}@{published}"),
        pull(empty.name),
    )
    match(
        lines,
        r"FetchError: .* lists a file '\.\./\.\./x', which leads out of the repository; nothing",
        edited,
        f"labels.txt has sha256 {labels.sha256}, expected .* as SHA256SUMS says; it was changed",
        published,
        "has no model.safetensors, so i3dzoo did not make it; name a file of it",
    )


def test_list_of_a_user(hub: Hub, home: Home, published: str, package: Package) -> None:
    """A user's i3dzoo repositories are listed, private ones to the owner only."""
    other = hub.create("alice/other")
    card = b"---\nlibrary_name: timm\n---\n"
    hub.commit(other, {"README.md": hub.regular(card)}, "card", "alice")
    secret = hub.create("alice/secret", private=True)
    hub.put(secret, package.folder)
    shown = home.ok("list", "--hub", "alice")
    heading, line = shown.stdout.splitlines()
    assert heading.split()[0] == "repository"
    assert line.split() == ["alice/i3d", "rgb", "hmdb51", "apache-2.0", "2026-01-02"]
    assert "Next: i3dzoo pull alice/i3d" in shown.stderr
    rows = json.loads(home.ok("list", "--hub", "alice", "--json", HF_TOKEN=ALICE).stdout)
    assert [(row["repository"], row["private"]) for row in rows] == [
        ("alice/i3d", False),
        ("alice/secret", True),
    ]
    assert "alice has no" not in shown.stderr
    assert "alice/i3d: is no name of a user" in home.fails("list", "--hub", "alice/i3d")
    assert published


def test_proxy(hub: Hub, home: Home, published: str) -> None:
    """The proxy of the environment is asked for everything."""
    proxy = {"HTTP_PROXY": hub.address, "HF_ENDPOINT": "http://hub.invalid"}
    code = f"from i3dzoo import hub; print(hub.pull(hub.parse('hf://{NAME}/config.json')).commit)"
    done = home.ok("-c", code, **proxy)
    assert done.stdout.strip() == published
    assert all(path.startswith("http://hub.invalid/") for _, path, _ in hub.log)


def test_python(hub: Hub, home: Home, published: str) -> None:
    """Python loads, verifies and pushes as the command line does, by the Hub's model mixin too."""
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
    assert lines[6].startswith("ChecksumError alice/i3d: config.json has git-blob ")
    assert lines[7].startswith("ChecksumError alice/i3d: config.json has git-blob ")
    assert lines[8].startswith("ChecksumError saved/labels.txt: has sha256 ")
    assert lines[9].startswith("FetchError alice/none: ")
    assert lines[10].startswith("MetadataError the model has no metadata")
    assert published


MIRROR = """
[[source]]
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
from i3dzoo.cli._progress import watch

with watch() as progress:
    print(zoo.pull_manifest(zoo.load_manifest(Path(sys.argv[1])), progress=progress))
"""


def test_mirror_needs_no_trust(hub: Hub, home: Home, tmp_path: Path) -> None:
    """A manifest's Hub source is believed by its tensors' checksums; else the next is asked."""
    published = make(tmp_path)
    repository = hub.create(NAME)
    other = write_checkpoint(tmp_path / "other.safetensors", constants())
    good, bad = (hub.store([each])[0] for each in (published.weights, other.read_bytes()))
    wrong = hub.commit(repository, {WEIGHTS: hub.large(bad)}, "other weights", "alice")
    hub.commit(repository, {WEIGHTS: hub.large(good)}, "the weights", "alice")
    hub.flip[good] = 2
    with loopback.serve() as site:
        published.serve(site)
        manifest = published.manifest(tmp_path, site, "file")
        mirrors = f"{MIRROR.replace('main', wrong).replace('A mirror', 'A liar')}{MIRROR}"
        manifest.write_text(manifest.read_text().replace("[[source]]", f"{mirrors}[[source]]", 1))
        done = home.ok("-c", PULL_MANIFEST, manifest)
        for text in (
            f"rgb_test: from A liar ({hub.address[7:]}/alice/i3d)",
            "230 of 230 tensors are not those of rgb_test",
            f"rgb_test: A mirror: hf://alice/i3d/{WEIGHTS}: {WEIGHTS} has sha256",
            "rgb_test: from The file (127.0.0.1:",
        ):
            assert text in done.stderr
        assert site.asked(FILE) == [None]
        path = Path(done.stdout.strip())
        path.unlink()
        done = home.ok("-c", PULL_MANIFEST, manifest)
        assert "The file" not in done.stderr
        assert tensor_crcs(read_checkpoint(path).tensors) == published.crcs


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
    """60 MB are pushed and pulled with less than 150 MB for the whole process."""
    checkpoint = constants(classes=19_000)
    file = write_checkpoint(tmp_path / "large.safetensors", checkpoint)
    assert file.stat().st_size > 60_000_000
    pushed = home.ok("-c", MEASURED, "push", file, NAME, HF_TOKEN=ALICE)
    assert hub.repositories[NAME].tree[WEIGHTS].size > 60_000_000
    pulled = home.ok("-c", MEASURED, "pull", NAME)
    for done in (pushed, pulled):
        peak = int(re.search(r"VmHWM:\s*(\d+) kB", done.stderr).group(1))  # type: ignore[union-attr]
        assert peak < 150_000
