import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from helpers import loopback
from helpers.disk import full_disk
from helpers.loopback import Site
from helpers.progress import RecordedProgress
from helpers.published import FAST, FILE, INDEX, SDIST, Published
from helpers.unprivileged import unprivileged

from i3dzoo import zoo
from i3dzoo.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from i3dzoo.errors import (
    FetchError,
    ManifestError,
    OfflineError,
    OutputError,
    UnknownNameError,
)
from i3dzoo.fetch.pull import pull as pull_by_name
from i3dzoo.fetch.pull import pull_manifest
from i3dzoo.progress import SILENT, Progress

CHILD = """
import sys
from pathlib import Path
from i3dzoo import zoo
from i3dzoo.fetch.pull import pull_manifest

class Printer:
    def start(self, name, total, unit="bytes"): print("start", name, flush=True)
    def update(self, done): print("done", done, flush=True)
    def message(self, text): print(text, flush=True)

print(pull_manifest(zoo.load_manifest(Path(sys.argv[1])), progress=Printer()))
"""


Make = Callable[..., Path]


def pull(manifest: Path, progress: Progress = SILENT, **options: bool) -> Path:
    """Pull by a manifest, with short timeouts."""
    return pull_manifest(zoo.load_manifest(manifest), progress=progress, policy=FAST, **options)


@pytest.fixture
def make(weights: Published, site: Site, tmp_path: Path) -> Make:
    """Write a manifest with sources on the site."""
    return partial(weights.manifest, tmp_path, site)


def files(folder: Path) -> list[str]:
    """Return the files under a folder, except locks."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(folder)) for path in paths if path.suffix != ".lock")


def test_pull_makes_a_canonical_file(make: Make, cache: Path) -> None:
    """A pulled file has the published labels and input, and no other files are left."""
    path = pull(make("index"))
    assert path == cache / "models" / "rgb_test.safetensors"
    metadata = read_checkpoint(path).metadata
    assert (metadata.zoo, metadata.stream) == ("rgb_test", "rgb")
    assert metadata.labels == zoo.labels("hmdb51")
    assert (metadata.input.crop, metadata.input.frames, metadata.input.fps) == (112, 16, None)
    assert files(cache) == ["models/rgb_test.safetensors"]


@pytest.mark.usefixtures("cache")
def test_cached_model_needs_no_network(make: Make, site: Site, progress: RecordedProgress) -> None:
    """A cached model is returned without a request, unless `force` is set."""
    manifest = make("file")
    path = pull(manifest)
    assert pull(manifest, progress) == path
    assert pull(manifest, progress, offline=True) == path
    assert len(site.log) == 1
    assert progress.messages == []
    pull(manifest, force=True)
    assert len(site.log) == 2


def test_offline_and_not_cached(make: Make, site: Site, cache: Path) -> None:
    """Offline, a model that is not cached is an error."""
    with pytest.raises(
        OfflineError,
        match=r"rgb_test: is not in the cache as .*rgb_test\.safetensors, .* run `i3dzoo pull",
    ):
        pull(make("file"), offline=True)
    assert site.log == []
    assert not cache.exists()


@pytest.mark.usefixtures("cache")
def test_corrupt_cache_is_repaired(make: Make, progress: RecordedProgress) -> None:
    """A corrupt cached file is downloaded again, with a message."""
    manifest = make("index")
    path = pull(manifest)
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(OfflineError, match="cannot be used from"):
        pull(manifest, offline=True)
    pull(manifest, progress)
    assert path.read_bytes() == good
    assert progress.messages[0].endswith("fetching it again")


@pytest.mark.usefixtures("cache")
def test_other_model_in_the_cache_is_replaced(make: Make, progress: RecordedProgress) -> None:
    """A cached file with other weights is replaced."""
    manifest = make("index")
    path = pull(manifest)
    checkpoint = read_checkpoint(path)
    tensors = dict(checkpoint.tensors)
    bias = "Logits.Conv3d_0c_1x1.conv.bias"
    tensors[bias] = tensors[bias] + 1
    write_checkpoint(path, type(checkpoint)(tensors, checkpoint.metadata), force=True)
    pull(manifest, progress)
    assert f"1 of 230 tensors differ from those of rgb_test: {bias}" in progress.messages[0]
    assert pull(manifest, offline=True) == path


def test_next_source_takes_over(
    make: Make, site: Site, cache: Path, progress: RecordedProgress
) -> None:
    """If a source fails, the next one is tried, with a message."""
    del site.files[INDEX]
    pull(make("index", "file"), progress)
    host = site.address.removeprefix("http://")
    assert progress.messages == [
        f"rgb_test: from The package (package index {host})",
        f"rgb_test: The package: {host}/simple/: has no project i3d-test",
        f"rgb_test: from The file ({host})",
    ]
    assert files(cache) == ["models/rgb_test.safetensors"]


def test_every_source_fails(make: Make, site: Site, cache: Path) -> None:
    """If all sources fail, the error lists the reason of each, and no files are left."""
    site.faults[SDIST] = [loopback.flipped]
    site.faults[FILE] = [loopback.status(403)]
    manifest = make("index", "file", "file")
    del site.files[FILE]
    with pytest.raises(FetchError) as caught:
        pull(manifest)
    summary, first, second, third = str(caught.value).splitlines()
    assert summary.startswith("rgb_test: no source could deliver it; run the command again")
    assert first.startswith("  1. The package: 127.0.0.1:")
    assert "has sha256:" in first
    assert second.endswith(f"{FILE}: HTTP 403 Forbidden")
    assert third.endswith(f"{FILE}: HTTP 404 Not Found")
    assert files(cache) == []
    assert not (cache / "downloads" / "rgb_test").exists()


def test_wrong_tensors_are_refused(make: Make, cache: Path) -> None:
    """A file with the right digest but other tensors is refused."""
    wrong = {"Conv3d_1a_7x7.bn.bias": 1, "Mixed_5b.Branch_2.Conv3d_0b_3x3.conv.weight": 2}
    with pytest.raises(
        FetchError,
        match=r"The file: rgb\.safetensors: 2 of 230 tensors differ from those of rgb_test: "
        r"Conv3d_1a_7x7\.bn\.bias, Mixed_5b\.Branch_2\.Conv3d_0b_3x3\.conv\.weight$",
    ):
        pull(make("file", **wrong))
    assert files(cache) == []


def test_cut_pull_is_resumed_by_the_next(make: Make, site: Site, cache: Path) -> None:
    """A pull resumes the download of a failed pull."""
    manifest = make("file")
    site.faults[FILE] = [loopback.cut(20_000_000), loopback.status(404)]
    with pytest.raises(FetchError, match="HTTP 404"):
        pull(manifest)
    folder = "downloads/rgb_test/1-canonical"
    assert files(cache) == [f"{folder}/rgb.safetensors.part", f"{folder}/rgb.safetensors.part.etag"]
    pull(manifest)
    assert site.ranges(FILE)[-1] == "bytes=20000000-"
    assert files(cache) == ["models/rgb_test.safetensors"]


def start(manifest: Path) -> subprocess.Popen[str]:
    """Start a process that pulls by a manifest and prints its progress."""
    command = [sys.executable, "-c", CHILD, str(manifest)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def read_until(child: subprocess.Popen[str], text: str) -> None:
    """Read the output of a process up to a line with a text."""
    assert child.stdout is not None
    lines = []
    for line in child.stdout:
        lines.append(line)
        if text in line:
            return
    pytest.fail(f"the process never printed {text!r}:\n{''.join(lines)}")


def test_killed_pull_is_resumed(make: Make, weights: Published, site: Site, cache: Path) -> None:
    """A killed pull leaves no lock, and the next pull resumes its download."""
    manifest = make("file")
    site.faults[FILE] = [loopback.slow]
    half = len(weights.weights) // 2
    with start(manifest) as child:
        read_until(child, f"done {half}\n")
        child.send_signal(signal.SIGKILL)
    part = cache / "downloads/rgb_test/1-canonical/rgb.safetensors.part"
    here = part.stat().st_size
    assert half - 100_000 < here <= half
    pull(manifest)
    assert site.ranges(FILE) == [None, f"bytes={here}-"]
    assert files(cache) == ["models/rgb_test.safetensors"]


def test_two_processes_fetch_once(make: Make, site: Site, cache: Path) -> None:
    """Of two simultaneous pulls one downloads, and the other waits for it."""
    released = threading.Event()

    def blocked(request: loopback.Request, content: bytes) -> None:
        released.wait(30)
        request.content(content)

    site.faults[SDIST] = [blocked]
    manifest = make("index")
    with start(manifest) as first:
        read_until(first, "done 0")
        with start(manifest) as second:
            read_until(second, "another process is fetching it; waiting")
            released.set()
            path = str(cache / "models" / "rgb_test.safetensors")
            read_until(first, path)
            read_until(second, path)
    assert (first.returncode, second.returncode) == (0, 0)
    assert len(site.ranges(SDIST)) == 1


def test_rubbish_of_a_killed_writer_goes(make: Make, cache: Path) -> None:
    """A temporary file of a killed process is removed by the next pull."""
    rubbish = cache / "models" / ".rgb_test.safetensors.abc123.part"
    rubbish.parent.mkdir(parents=True)
    rubbish.write_bytes(b"half")
    pull(make("index"))
    assert files(cache) == ["models/rgb_test.safetensors"]


def test_cache_that_cannot_be_written(
    make: Make, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that cannot be written is an error before the download."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("I3DZOO_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"rgb_test\.lock: cannot be written: "):
        pull(make("index"))
    assert site.log == []


def test_read_only_cache(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only cache can be used; a download into it is an error that names the folder."""
    manifest = zoo.load_manifest(make("index"))
    with tempfile.TemporaryDirectory() as folder:  # in none of the folders of pytest, closed to all
        cache = Path(folder)
        monkeypatch.setenv("I3DZOO_CACHE", folder)
        path = pull_manifest(manifest, policy=FAST)
        shutil.rmtree(cache / "locks")
        cache.chmod(0o555)
        try:
            with unprivileged():
                assert pull_manifest(manifest, policy=FAST) == path
            path.unlink()
            with unprivileged(), pytest.raises(OutputError, match="no permission to write in"):
                pull_manifest(manifest, policy=FAST)
        finally:
            cache.chmod(0o700)


def test_disk_that_takes_no_more(make: Make, site: Site, cache: Path) -> None:
    """On a full disk no other source is tried, and the part is kept."""
    manifest = make("file", "index")
    with (
        full_disk(10_000_000),
        pytest.raises(OutputError, match="cannot be written: it is larger than the limit"),
    ):
        pull(manifest)
    assert len(site.log) == 1
    assert [name.rpartition(".")[2] for name in files(cache)] == ["part", "etag"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("rgb_scrach", "did you mean rgb_scratch"),
        ("RGB_ImageNet", "did you mean rgb_imagenet"),
        ("resnet50", "no zoo model has this name"),
    ],
)
def test_unknown_name(name: str, hint: str) -> None:
    """The error for an unknown name suggests the right one, and lists all names."""
    with pytest.raises(UnknownNameError, match=f"{name}: .*{hint}.*the zoo has flow_"):
        pull_by_name(name)


def test_manifest_that_is_missing(tmp_path: Path) -> None:
    """The error for an unreadable manifest names the file."""
    with pytest.raises(ManifestError, match=r"none\.toml: cannot be read as a manifest"):
        zoo.load_manifest(tmp_path / "none.toml")


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cache is I3DZOO_CACHE, or the standard place of the system."""
    monkeypatch.setenv("I3DZOO_CACHE", str(tmp_path))
    assert zoo.cache_dir() == tmp_path
    monkeypatch.delenv("I3DZOO_CACHE")
    assert zoo.cache_dir().name == "i3dzoo"
    assert zoo.cached_path("rgb_scratch").match("i3dzoo/models/rgb_scratch.safetensors")


@pytest.mark.real_data
def test_deepmind_files(deepmind_bundle: Path, cache: Path) -> None:
    """DeepMind's files have the git blob ids, sizes and checksums of the manifest."""
    model = zoo.manifest("rgb_scratch")
    source = model.sources[1]
    assert isinstance(source, zoo.Files)
    with loopback.serve() as site:
        for file in source.files:
            site.files[f"/{file.name}"] = (deepmind_bundle.parent / file.name).read_bytes()
        moved = [file.replace(url=f"{site.address}/{file.name}") for file in source.files]
        source = source.replace(files=tuple(moved))
        path = pull_manifest(model.replace(sources=(source,)), policy=FAST)
    assert read_checkpoint(path).metadata.source.layout == "deepmind"
    assert files(cache) == ["models/rgb_scratch.safetensors"]
