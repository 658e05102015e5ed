"""Push with the real client of the Hub, in child processes, to a Hub on loopback."""

import json
import re
import threading
from pathlib import Path

import pytest
from helpers.hub_home import ALICE, NAME, READER, STRANGER, Home, constants, onnx_of
from helpers.hub_server import Hub

from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.checkpoints.labels import labels
from i3dzoo.hub import Package

PNG = b"\x89PNG\r\n\x1a\n"


def test_push_and_pull(hub: Hub, home: Home, hub_file: Path, package: Package) -> None:
    """A push makes one commit with all files and a tag, which can be pulled."""
    hub.busy = 1  # the upload is repeated
    pushed = home.ok("push", hub_file, NAME, "--tag", "v1", "--message", "First", HF_TOKEN=ALICE)
    repository = hub.repositories[NAME]
    assert hub.history(repository) == ["First", "initial commit"]
    assert repository.tags == {"v1": repository.head}
    assert pushed.stdout == f"{hub.address}/alice/i3d/commit/{repository.head}\n"
    assert "Next: i3dzoo pull alice/i3d@v1" in pushed.stderr
    assert "HTTP Error 503" in pushed.stderr
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
    """A dry run shows all files and the card, without a request or a token."""
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
    """A push includes pictures beside the file; the next push deletes them if they are gone."""
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
    assert len(hub.requests(f"/_lfs/{repository.tree['model.safetensors'].sha256}")) == 1


PUSHES = """
import json, sys
from pathlib import Path
from i3dzoo import hub
from i3dzoo.errors import PushError
from i3dzoo.checkpoints.metadata import Metadata, Source, default_input

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
    """Without write access nothing is pushed, and the error says why."""
    before = hub.create(NAME).head
    folder = tmp_path / "package"
    folder.mkdir()
    cases = [
        (False, NAME, r"needs a token; log in with `hf auth login` or set HF_TOKEN"),
        ("hf_nobody", NAME, r"rejects the token \(HTTP 401\); log in with `hf auth login`"),
        (READER, NAME, r"the token has no permission for this; .*write access.* \(HTTP 403\)"),
        (STRANGER, NAME, r"the token has no permission for this; .*write access.* \(HTTP 403\)"),
        (STRANGER, "alice/new", r"the token has no permission for this; .* \(HTTP 403\)"),
        (ALICE, "alice/", r"alice/: is not a valid repository name; expected USER/NAME"),
    ]
    pairs = json.dumps([(token, name) for token, name, _ in cases])
    lines = home.ok("-c", PUSHES, folder, pairs).stdout.splitlines()
    for (_, name, message), line in zip(cases, lines, strict=True):
        assert line.startswith(f"{name}: ")
        assert re.search(message, line), line
    assert hub.repositories.keys() == {NAME}
    assert hub.repositories[NAME].head == before


def test_refused_push_in_words(hub: Hub, home: Home, hub_file: Path) -> None:
    """The command line shows the error in one sentence."""
    hub.create(NAME)
    error = home.fails("push", hub_file, NAME, HF_TOKEN=READER)
    assert "i3dzoo: alice/i3d: the token has no permission for this" in error
    talkative = {"HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug"}
    done = home.run("--debug", "push", hub_file, NAME, HF_TOKEN=READER, **talkative)
    assert "Traceback" in done.stderr  # `run` has looked for the token in it


def test_push_offline(home: Home, hub_file: Path) -> None:
    """HF_HUB_OFFLINE forbids a push."""
    error = home.fails("push", hub_file, NAME, HF_TOKEN=ALICE, HF_HUB_OFFLINE="1")
    assert "alice/i3d: the network is needed, and HF_HUB_OFFLINE forbids it" in error


def test_stale_parent(hub: Hub, home: Home, hub_file: Path) -> None:
    """A push on top of an older commit changes nothing."""
    repository = hub.create(NAME)
    old = repository.head
    new = hub.commit(repository, repository.tree, "meanwhile", "alice")
    error = home.fails("push", hub_file, NAME, "--parent", old, HF_TOKEN=ALICE)
    assert re.search(r"was changed during this push, and nothing was .* \(HTTP 412\)", error)
    assert repository.head == new


def test_two_pushes_at_once(hub: Hub, home: Home, hub_file: Path, tmp_path: Path) -> None:
    """Of two simultaneous pushes one succeeds, and the other fails."""
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
    assert "was changed during this push" in error
    won = ("hmdb51", "other")[[code for _, _, code in ended].index(0)]
    assert hub.history(repository) == [won, "initial commit"]
    value = read_checkpoint(hub.blob(repository.tree["model.safetensors"].sha256)).tensors
    expected = {"hmdb51": 0.5, "other": 0.25}[won]
    assert value["Conv3d_1a_7x7.bn.bias"][0] == expected


def test_interrupted_push(
    hub: Hub, home: Home, hub_file: Path, published: str, tmp_path: Path
) -> None:
    """A killed push leaves the branch unchanged."""
    other = write_checkpoint(tmp_path / "other.safetensors", constants(value=0.25))
    repository = hub.repositories[NAME]
    tree = dict(repository.tree)
    hub.hold = True
    with home.start("push", other, NAME, HF_TOKEN=ALICE) as child:
        assert hub.held.wait(60)
        child.kill()
    hub.released.set()
    assert (repository.head, repository.tree) == (published, tree)
    hub.hold = False
    home.ok("push", other, NAME, HF_TOKEN=ALICE)
    assert repository.head != published
    assert repository.tree["model.safetensors"] != tree["model.safetensors"]
    assert hub_file.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--private"], "is already public, but --private was given"),
        (["--tag", "v1"], r"has a tag v1 already, on commit \w{8}; choose another"),
    ],
)
def test_push_that_does_not_fit(
    hub: Hub, home: Home, hub_file: Path, published: str, options: list[str], message: str
) -> None:
    """A public repository or an existing tag is an error before the push."""
    hub.repositories[NAME].tags["v1"] = published
    error = home.fails("push", hub_file, NAME, *options, HF_TOKEN=ALICE)
    assert re.search(f"alice/i3d: {message}", error)
    assert hub.repositories[NAME].head == published


def test_nothing_without_licence_or_labels(
    hub: Hub, home: Home, random_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Without a licence or labels nothing is pushed."""
    bare = random_checkpoint.metadata.replace(labels=None)
    file = write_checkpoint(tmp_path / "x.safetensors", Checkpoint(random_checkpoint.tensors, bare))
    (tmp_path / "classes.txt").write_text("".join(f"class {number}\n" for number in range(12)))
    error = home.fails("push", file, NAME, HF_TOKEN=ALICE)
    assert "x.safetensors: its 12 classes have no names" in error
    assert "pass --labels" in error
    named = ["--labels", tmp_path / "classes.txt"]
    error = home.fails("push", file, NAME, *named, HF_TOKEN=ALICE)
    assert "x.safetensors: its licence is unknown" in error
    assert "pass --license" in error
    assert hub.log == []
    home.ok("push", file, NAME, *named, "--license", "CC-BY-4.0", HF_TOKEN=ALICE)
    card = hub.blob(hub.repositories[NAME].tree["README.md"].sha256).read_text()
    assert "license: cc-by-4.0" in card
