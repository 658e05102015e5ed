"""What tests share: the genuine weights, the folder of real data, and checkpoints made of them."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from i3dzoo import convert, tables, zoo
from i3dzoo.architecture import canonical_shapes
from i3dzoo.arrays import Tensors
from i3dzoo.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.errors import FetchError
from i3dzoo.formats.tensorflow_bundle import read_index
from i3dzoo.hub import About, Package, prepare
from i3dzoo.metadata import Metadata, Source, default_input

from . import hub_home, hub_server
from .hub_home import Home
from .hub_server import Hub, User


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
            return zoo.pull("rgb_scratch")
        except FetchError as error:
            if os.environ.get("I3DZOO_REQUIRE_NETWORK"):
                raise
            pytest.skip(f"the genuine weights cannot be fetched: {error}")


@pytest.fixture(scope="session")
def genuine(rgb_scratch: Path) -> Checkpoint:
    """The genuine rgb_scratch checkpoint."""
    return read_checkpoint(rgb_scratch)


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
    arrays = convert.from_canonical("", genuine.tensors, tables.table("deepmind")).tensors
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
