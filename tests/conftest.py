"""What tests share: the genuine weights, the folder of real data, and checkpoints made of them."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from helpers import hub_home, hub_server
from helpers.checkpoints import to_layout
from helpers.hub_home import Home
from helpers.hub_server import Hub, User

from i3dzoo.arrays import Tensors
from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.checkpoints.metadata import Metadata, Source, default_input
from i3dzoo.errors import FetchError
from i3dzoo.fetch.pull import pull
from i3dzoo.formats.tensorflow_bundle import read_index
from i3dzoo.hub import About, Package, prepare
from i3dzoo.network.architecture import canonical_shapes


@pytest.fixture(scope="session", autouse=True)
def temporary_folder() -> Iterator[None]:
    """What libraries and child processes leave behind is in a folder that is removed."""
    get_temp_dir()  # of multiprocessing, which removes it later than this folder
    with (
        tempfile.TemporaryDirectory(prefix="i3dzoo-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        Path(folder).chmod(0o755)  # some tests run without the rights of root
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        # no test looks at the disk after a power failure, and each of many large files takes 50 ms
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def one_engine() -> Iterator[None]:
    """Checkpoints run in PyTorch, so that no test measures engines unless it means to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("I3DZOO_ENGINE", "torch")
        yield


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real clips, splits and checkpoint indexes."""
    folder = os.environ.get("I3DZOO_TEST_DATA")
    if not folder:
        pytest.skip("I3DZOO_TEST_DATA is not set: no real clips and checkpoint indexes")
    return Path(folder)


@pytest.fixture(scope="session")
def rgb_scratch(request: pytest.FixtureRequest) -> Path:
    """The genuine rgb_scratch weights as a canonical file, pulled once and cached by pytest."""
    cache = request.config.cache.mkdir("zoo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("I3DZOO_CACHE", str(cache))
        try:
            return pull("rgb_scratch")
        except FetchError as error:
            if os.environ.get("I3DZOO_REQUIRE_NETWORK"):
                raise
            pytest.skip(f"the genuine weights cannot be fetched: {error}")


@pytest.fixture(scope="session")
def genuine(rgb_scratch: Path) -> Checkpoint:
    """The genuine rgb_scratch checkpoint."""
    return read_checkpoint(rgb_scratch)


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """A function that returns a folder by its name, which the first of all workers fills."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def once(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = root / f"once-{name}", root / f"once-{name}.done"
        with FileLock(root / f"once-{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a worker could not finish
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def motions(once: Once) -> Path:
    """Three motions with 4 + 1 clips each, named as classes of HMDB51: an odd number of tests."""
    from helpers.training_runs import three_motions  # imports the optional accelerate

    return once("motions", lambda folder: three_motions(folder, per_class=5)) / "prepared"


@pytest.fixture(scope="session")
def finetuned(motions: Path, rgb_scratch: Path, once: Once) -> Path:
    """The folder of a short run of `i3dzoo finetune` on `motions`."""
    from helpers.training_runs import SMOKE, finetune

    def fill(folder: Path) -> None:
        words = ("--data", motions, "--from", rgb_scratch, "-o", folder / "run", *SMOKE)
        result = finetune("hmdb51", *words)
        assert result.returncode == 0, result.stderr

    return once("finetuned", fill) / "run"


@pytest.fixture(scope="session")
def rgb() -> Checkpoint:
    """A seeded RGB network of 5 classes, with clips of 16 frames of 32x32."""
    from helpers.exported import noisy  # imports the optional onnx

    return noisy("rgb", 5)


@pytest.fixture(scope="session")
def rgb_file(rgb: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as a canonical file."""
    return write_checkpoint(tmp_path_factory.mktemp("rgb") / "x.safetensors", rgb)


@pytest.fixture(scope="session")
def deepmind_bundle(
    test_data: Path, genuine: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """DeepMind's rgb_scratch checkpoint: its own index, its data file rebuilt from the weights."""
    folder = tmp_path_factory.mktemp("deepmind")
    index = folder / "model.ckpt.index"
    shutil.copy(test_data / "deepmind" / "rgb_scratch.index", index)
    index.chmod(0o644)
    _, entries = read_index(index)
    arrays = to_layout(genuine.tensors)
    size = max(entry.offset + entry.size for entry in entries.values())
    data = np.zeros(size, "u1")
    for name, entry in entries.items():
        raw = np.ascontiguousarray(arrays[name]).reshape(-1).view("u1")
        data[entry.offset : entry.offset + entry.size] = raw
    (folder / "model.ckpt.data-00000-of-00001").write_bytes(data)
    return index


@pytest.fixture(scope="session")
def random_tensors() -> Tensors:
    """A canonical state dict of random numbers: RGB, 12 classes."""
    generator = np.random.default_rng(0)
    return {
        name: generator.random(shape, "f4")
        if not name.endswith("bn.weight")
        else np.ones(shape, "f4")
        for name, shape in canonical_shapes(12).items()
    }


@pytest.fixture(scope="session")
def random_checkpoint(random_tensors: Tensors) -> Checkpoint:
    """A checkpoint of random numbers with labels."""
    labels = tuple(f"class {number}" for number in range(12))
    metadata = Metadata("rgb", 12, labels, default_input("rgb"), Source("canonical", "0" * 64))
    return Checkpoint(random_tensors, metadata)


@pytest.fixture(scope="session")
def file(random_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of random numbers as a canonical file."""
    return write_checkpoint(tmp_path_factory.mktemp("random") / "x.safetensors", random_checkpoint)


@pytest.fixture(scope="session")
def hub_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 51 classes."""
    return write_checkpoint(
        tmp_path_factory.mktemp("file") / "hmdb51.safetensors", hub_home.constants()
    )


@pytest.fixture(scope="session")
def package(hub_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """What a push of the checkpoint sends."""
    folder = tmp_path_factory.mktemp("package")
    return prepare(read_checkpoint(hub_file), folder, About(repository=hub_home.NAME))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A Hub with users and no repository."""
    root = tmp_path / "hub"
    root.mkdir()
    with hub_server.serve(root) as hub:
        hub.users |= {
            hub_home.ALICE: User("alice"),
            hub_home.READER: User("alice", writes=False),
            hub_home.STRANGER: User("bob"),
        }
        yield hub
    shutil.rmtree(root)


@pytest.fixture
def home(hub: Hub, tmp_path: Path) -> Iterator[Home]:
    """A computer without a token."""
    folder = tmp_path / "home"
    folder.mkdir()
    yield Home(folder, hub)
    shutil.rmtree(folder)


@pytest.fixture
def published(hub: Hub, package: Package) -> str:
    """The commit of the checkpoint in alice/i3d, put there without a client."""
    return hub.put(hub.create(hub_home.NAME), package.folder)


# Files that take long, longest first: none of them may begin when other workers are about to end.
LONG = (
    "tests/fuzz/test_kinds.py",
    "tests/fuzz/test_kinds_of_videos.py",
    "tests/network/test_parity_tensorflow.py",
    "tests/training/test_finetune.py",
    "tests/app/test_page.py",
    "tests/docs/test_blocks.py",
    "tests/docs/test_notebook.py",
    "tests/docs/test_site.py",
    "tests/fvd/test_constants.py",
    "tests/hub/test_pull.py",
    "tests/formats/test_fuzz.py",
    "tests/training/test_distributed.py",
    "tests/tao/test_finetune.py",
    "tests/test_bench.py",
    "tests/hub/test_lies.py",
    "tests/hub/test_dataset.py",
    "tests/features/test_presets.py",
    "tests/checkpoints/test_inflation.py",
    "tests/exporters/test_tensorrt.py",
    "tests/training/test_own_videos.py",
    "tests/onnx/test_genuine_weights.py",
    "tests/onnx/test_model.py",
    "tests/network/test_variant.py",
    "tests/hub/test_push.py",
    "tests/fuzz/test_harness.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files, in which workers take them, by `LONG`."""
    rank = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give workers whole files; the files that import TensorFlow are for one worker."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc] # xdist has no types here
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return "tensorflow" if "tensorflow" in file else file

    config.option.loadscopereorder = False  # it would order files by their number of tests
    return Scheduling(config, log)
