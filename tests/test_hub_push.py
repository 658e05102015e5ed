"""Pushing by the real client of the Hub, in child processes, to a Hub of our own."""

import dataclasses
import json
import re
import threading
from pathlib import Path

from i3dzoo.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.hub import Package
from i3dzoo.labels import labels

from .hub_home import ALICE, NAME, READER, STRANGER, Home, constants, onnx_of
from .hub_server import Hub

PNG = b"\x89PNG\r\n\x1a\n"


def test_push_and_pull(hub: Hub, home: Home, hub_file: Path, package: Package) -> None:
    """What is pushed comes back into an empty home, as one commit, tagged, with every file."""
    hub.busy = 1  # then the storage is asked again
    pushed = home.ok("push", hub_file, NAME, "--tag", "v1", "--message", "First", HF_TOKEN=ALICE)
    repository = hub.repositories[NAME]
    assert hub.history(repository) == ["First", "initial commit"]
    assert repository.tags == {"v1": repository.head}
    assert pushed.stdout == f"{hub.address}/alice/i3d/commit/{repository.head}\n"
    assert "Next: i3dzoo pull alice/i3d@v1" in pushed.stderr
    assert f"\n{hub.address[7:]}: HTTP Error 503; trying again in 1 s\n" in f"\n{pushed.stderr}"
    assert "thrown while" not in pushed.stderr
    sent = {name: (file.sha256, file.size) for name, file in repository.tree.items()}
    expected = {name: (digest, size) for name, size, digest in package.files}
    assert {name: sent[name] for name in expected} == expected
    assert repository.tree["model.safetensors"].lfs

    pulled = home.ok("pull", f"{NAME}@v1")
    path = Path(pulled.stdout.strip())
    assert path == home.snapshot(repository.head) / "model.safetensors"
    assert "rgb, 51 classes, 24.8 MB" in pulled.stderr
    assert "6 files verified by their digests" in pulled.stderr
    assert read_checkpoint(path).metadata.labels == labels("hmdb51")
    again = home.ok("pull", f"{NAME}@v1", HF_HUB_OFFLINE="1")
    assert again.stdout == pulled.stdout


def test_dry_run_sends_nothing(hub: Hub, home: Home, hub_file: Path) -> None:
    """A dry run shows every file with its digest, and the card, without a request or a token."""
    done = home.ok("push", hub_file, NAME, "--dry-run")
    for name in (
        "README.md",
        "SHA256SUMS",
        "config.json",
        "labels.txt",
        "model.safetensors",
        "preprocessor_config.json",
        "library_name: i3dzoo",
        'i3dzoo.load("alice/i3d")',
    ):
        assert name in done.stdout
    document = json.loads(home.ok("push", hub_file, NAME, "--dry-run", "--json").stdout)
    assert (document["pushed"], document["licence"], len(document["files"])) == (
        False,
        "Apache-2.0",
        6,
    )
    assert hub.log == []


def test_second_push_replaces_the_first(
    hub: Hub, home: Home, hub_file: Path, tmp_path: Path
) -> None:
    """A push takes along what lies beside the file; the next takes away what is not there now."""
    folder = tmp_path / "run"
    folder.mkdir()
    file = folder / "best.safetensors"
    file.write_bytes(hub_file.read_bytes())
    (folder / "best.training_curves.png").write_bytes(PNG)
    (folder / "confusion.png").write_bytes(PNG)
    (folder / "best.onnx").write_bytes(onnx_of(read_checkpoint(hub_file)))
    home.ok("push", file, NAME, "--private", "--onnx", folder / "best.onnx", HF_TOKEN=ALICE)
    repository = hub.repositories[NAME]
    extras = {"training_curves.png", "confusion_matrix.png", "model.onnx"}
    assert repository.private
    assert extras < set(repository.tree)
    pulled = home.ok("pull", NAME, "--all", "--json", HF_TOKEN=ALICE)
    assert extras < set(json.loads(pulled.stdout)[0]["files_verified"])

    home.ok("push", hub_file, NAME, HF_TOKEN=ALICE)
    assert not extras & set(repository.tree)
    assert len(hub.history(repository)) == 3
    assert len(hub.asked(f"/_lfs/{repository.tree['model.safetensors'].sha256}")) == 1


PUSHES = """
import json, sys
from pathlib import Path
from i3dzoo import hub
from i3dzoo.errors import PushError
from i3dzoo.metadata import Metadata, Source, default_input

folder = Path(sys.argv[1])
(folder / "config.json").write_text("{}")
metadata = Metadata("rgb", 0, None, default_input("rgb"), Source("canonical", "0" * 64))
package = hub.Package(folder, (("config.json", 2, ""),), "", "MIT", metadata)
for token, name in json.loads(sys.argv[2]):
    try:
        print(hub.push(package, name, token=token))
    except PushError as error:
        print(error)
"""


def test_refused_pushes(hub: Hub, home: Home, tmp_path: Path) -> None:
    """Without the right to write nothing is pushed, and the reason is one sentence."""
    before = hub.create(NAME).head
    folder = tmp_path / "package"
    folder.mkdir()
    cases = [
        (False, NAME, r"wants to know who you are; log in with `hf auth login` or set HF_TOKEN"),
        ("hf_nobody", NAME, r"does not know the token \(HTTP 401\); log in with `hf auth login`"),
        (READER, NAME, r"the token may not do this; .* write there is needed \(HTTP 403\)"),
        (STRANGER, NAME, r"the token may not do this; .* write there is needed \(HTTP 403\)"),
        (STRANGER, "alice/new", r"the token may not do this; .* \(HTTP 403\)"),
        (ALICE, "alice/", r"alice/: is no name that the Hub takes; expected USER/NAME"),
    ]
    pairs = json.dumps([(token, name) for token, name, _ in cases])
    lines = home.ok("-c", PUSHES, folder, pairs).stdout.splitlines()
    for (_, name, message), line in zip(cases, lines, strict=True):
        assert line.startswith(f"{name}: ")
        assert re.search(message, line), line
    assert hub.repositories.keys() == {NAME}
    assert hub.repositories[NAME].head == before


def test_refused_push_in_words(hub: Hub, home: Home, hub_file: Path) -> None:
    """The command line says in one sentence why the Hub did not take it."""
    hub.create(NAME)
    error = home.fails("push", hub_file, NAME, HF_TOKEN=READER)
    assert "i3dzoo: alice/i3d: the token may not do this" in error
    talkative = {"HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug"}
    done = home.run("--debug", "push", hub_file, NAME, HF_TOKEN=READER, **talkative)
    assert "Traceback" in done.stderr  # `run` has looked for the token in it


def test_push_offline(home: Home, hub_file: Path) -> None:
    """HF_HUB_OFFLINE forbids a push, and says so."""
    error = home.fails("push", hub_file, NAME, HF_TOKEN=ALICE, HF_HUB_OFFLINE="1")
    assert "alice/i3d: the network is needed, and HF_HUB_OFFLINE forbids it" in error


def test_stale_parent(hub: Hub, home: Home, hub_file: Path) -> None:
    """A push on top of a commit that is no longer the last one changes nothing."""
    repository = hub.create(NAME)
    old = repository.head
    new = hub.commit(repository, repository.tree, "meanwhile", "alice")
    error = home.fails("push", hub_file, NAME, "--parent", old, HF_TOKEN=ALICE)
    assert "was changed while this push ran, and nothing was pushed" in error
    assert "(HTTP 412)" in error
    assert repository.head == new


def test_two_pushes_at_once(hub: Hub, home: Home, hub_file: Path, tmp_path: Path) -> None:
    """Of two pushes at once one wins whole, and the other says that it did not."""
    other = write_checkpoint(tmp_path / "other.safetensors", constants(value=0.25))
    repository = hub.create(NAME)
    hub.barrier = threading.Barrier(2)
    children = [
        home.start("push", file, NAME, "--message", file.stem, HF_TOKEN=ALICE)
        for file in (hub_file, other)
    ]
    ended = [(*child.communicate(timeout=60), child.returncode) for child in children]
    assert sorted(code for _, _, code in ended) == [0, 1]
    (error,) = (err for _, err, code in ended if code)
    assert "was changed while this push ran" in error
    won = ("hmdb51", "other")[[code for _, _, code in ended].index(0)]
    assert hub.history(repository) == [won, "initial commit"]
    value = read_checkpoint(hub.blob(repository.tree["model.safetensors"].sha256)).tensors
    expected = {"hmdb51": 0.5, "other": 0.25}[won]
    assert value["Conv3d_1a_7x7.bn.bias"][0] == expected


def test_interrupted_push(
    hub: Hub, home: Home, hub_file: Path, published: str, tmp_path: Path
) -> None:
    """A push that is killed half way leaves the branch and its files as they were."""
    other = write_checkpoint(tmp_path / "other.safetensors", constants(value=0.25))
    repository = hub.repositories[NAME]
    tree = dict(repository.tree)
    hub.hold = True
    with home.start("push", other, NAME, HF_TOKEN=ALICE) as child:
        assert hub.held.wait(60)
        child.kill()
    hub.go_on.set()
    assert (repository.head, repository.tree) == (published, tree)
    hub.hold = False
    home.ok("push", other, NAME, HF_TOKEN=ALICE)
    assert repository.head != published
    assert repository.tree["model.safetensors"] != tree["model.safetensors"]
    assert hub_file.exists()


def test_public_repository_is_not_taken_for_private(
    hub: Hub, home: Home, hub_file: Path, published: str
) -> None:
    """--private never sends anything to a repository that everyone sees."""
    error = home.fails("push", hub_file, NAME, "--private", HF_TOKEN=ALICE)
    assert "alice/i3d: is public already, and --private was asked for" in error
    assert hub.repositories[NAME].head == published


def test_tag_that_exists(hub: Hub, home: Home, hub_file: Path, published: str) -> None:
    """A tag is never moved, and is looked at before anything is sent."""
    hub.repositories[NAME].tags["v1"] = published
    error = home.fails("push", hub_file, NAME, "--tag", "v1", HF_TOKEN=ALICE)
    assert f"has a tag v1 already, on commit {published[:8]}; choose another" in error
    assert hub.repositories[NAME].head == published


def test_nothing_without_licence_or_labels(
    hub: Hub, home: Home, random_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """What has no licence or no labels is not pushed, until both are given."""
    bare = dataclasses.replace(random_checkpoint.metadata, labels=None)
    file = write_checkpoint(tmp_path / "x.safetensors", Checkpoint(random_checkpoint.tensors, bare))
    (tmp_path / "classes.txt").write_text("".join(f"class {number}\n" for number in range(12)))
    error = home.fails("push", file, NAME, HF_TOKEN=ALICE)
    assert "x.safetensors: its 12 classes have no names" in error
    assert "pass --labels" in error
    named = ["--labels", tmp_path / "classes.txt"]
    error = home.fails("push", file, NAME, *named, HF_TOKEN=ALICE)
    assert "x.safetensors: its licence is not known" in error
    assert "pass --license" in error
    assert hub.log == []
    home.ok("push", file, NAME, *named, "--license", "CC-BY-4.0", HF_TOKEN=ALICE)
    card = hub.blob(hub.repositories[NAME].tree["README.md"].sha256).read_text()
    assert "license: cc-by-4.0" in card
