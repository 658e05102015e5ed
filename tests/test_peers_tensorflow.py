"""What i3dzoo writes is read by TensorFlow and Keras, and what they write is read by i3dzoo."""

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from i3dzoo import convert, formats, tables
from i3dzoo.arrays import Tensors
from i3dzoo.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.checksums import git_blob
from i3dzoo.loading import build

from . import keras_i3d
from .mutations import read_mutants

pytestmark = [
    pytest.mark.tensorflow,
    # what Keras does with its own variables when it saves them
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning"),
]

tf = pytest.importorskip("tensorflow", reason="the extra tensorflow is not installed")
keras = pytest.importorskip("keras", reason="the extra tensorflow is not installed")
h5py = pytest.importorskip("h5py")

CLIP = (16, 32, 32, 3)


def _foreign(genuine: Checkpoint) -> Tensors:
    return convert.from_canonical("", genuine.tensors, tables.table("deepmind")).tensors


@pytest.fixture(scope="module")
def prefix(genuine: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The genuine weights, written in DeepMind's layout by i3dzoo; the prefix."""
    path = tmp_path_factory.mktemp("bundle") / "model.ckpt"
    index = write_checkpoint(path, genuine, "deepmind")
    assert index.name == "model.ckpt.index"
    return path


def test_the_bundle_is_deepminds_to_the_bit(prefix: Path) -> None:
    """Data file and index are the published files, byte for byte."""
    data = prefix.with_name("model.ckpt.data-00000-of-00001")
    assert git_blob(data) == "fa7df95674dbf3579e7fccd954e51e706b4734c1"
    index = prefix.with_name("model.ckpt.index")
    assert git_blob(index) == "84dd4518e982d9ca6ce1ff02e95fca2e8cbb1f73"


def test_tensorflow_reads_the_bundle(prefix: Path, genuine: Checkpoint) -> None:
    """load_checkpoint finds the same names, shapes and numbers."""
    reader = tf.train.load_checkpoint(str(prefix))
    expected = _foreign(genuine)
    shapes = reader.get_variable_to_shape_map()
    assert shapes == {name: list(array.shape) for name, array in expected.items()}
    for name, array in expected.items():
        np.testing.assert_array_equal(reader.get_tensor(name), array)


def test_saver_restores_the_bundle(prefix: Path, genuine: Checkpoint) -> None:
    """Saver.restore fills a graph's variables from it."""
    expected = _foreign(genuine)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {
            name: tf.compat.v1.get_variable(name, array.shape) for name, array in expected.items()
        }
        tf.compat.v1.train.Saver(variables).restore(session, str(prefix))
        for name, array in session.run(variables).items():
            np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize("dtype", ["f2", "bfloat16"])
def test_tensorflow_reads_other_dtypes(tmp_path: Path, dtype: str) -> None:
    """Half precision of both kinds, integers and scalars are TensorFlow's own."""
    import ml_dtypes

    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    tensors = {"a/b": np.arange(6).reshape(2, 3).astype(kind), "n": np.array(7), "ab": np.zeros(2)}
    formats.write("tensorflow", tmp_path / "x", tensors, {})
    reader = tf.train.load_checkpoint(str(tmp_path / "x"))
    for name, array in tensors.items():
        np.testing.assert_array_equal(reader.get_tensor(name), array)


@pytest.fixture(scope="module")
def model() -> Any:
    """The Keras model with a head of 400 classes."""
    return keras_i3d.build(keras, CLIP, 400)


@pytest.fixture(scope="module")
def expected(genuine: Checkpoint) -> tuple[Any, Any]:
    """A clip and what our network makes of it: the last block, classified at every point."""
    clip = np.random.default_rng(0).uniform(-1, 1, (1, *CLIP)).astype("f4")
    network = build(genuine)
    with torch.inference_mode():
        x = torch.from_numpy(np.ascontiguousarray(clip.transpose(0, 4, 1, 2, 3)))
        features = network.endpoints(x, ["Mixed_5c"])["Mixed_5c"]
        head = [torch.from_numpy(np.array(a)) for n, a in genuine.tensors.items() if "Logits" in n]
        logits = torch.nn.functional.conv3d(features, *head)
    return clip, logits.numpy().transpose(0, 2, 3, 4, 1)


@pytest.mark.parametrize("how", ["in order", "by name", "keras 3"])
def test_keras_loads_what_is_written(
    model: Any, expected: tuple[Any, Any], genuine: Checkpoint, tmp_path: Path, how: str
) -> None:
    """The model of the Keras port with our weights computes what our network computes."""
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    if how == "keras 3":
        path = write_checkpoint(tmp_path / "x.weights.h5", genuine, "keras3")
        model.load_weights(str(path))
    else:
        path = write_checkpoint(tmp_path / "x.h5", genuine, "keras")
        model.load_weights(str(path), by_name=how == "by name")
    clip, logits = expected
    found = np.asarray(model(clip, training=False))
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-3 * np.abs(logits).max())


def test_keras_loads_a_trunk(genuine: Checkpoint, tmp_path: Path) -> None:
    """Files without top fit the model without top."""
    trunk = {name: a for name, a in genuine.tensors.items() if not name.startswith("Logits")}
    metadata = dataclasses.replace(genuine.metadata, num_classes=0, labels=None)
    model = keras_i3d.build(keras, CLIP, None)
    model.load_weights(
        str(write_checkpoint(tmp_path / "x.h5", Checkpoint(trunk, metadata), "keras"))
    )
    stem = np.asarray(model.get_layer("Conv3d_1a_7x7_conv").kernel)
    np.testing.assert_array_equal(
        stem.transpose(4, 3, 0, 1, 2), genuine.tensors["Conv3d_1a_7x7.conv.weight"]
    )


@pytest.fixture(scope="module")
def trained(model: Any, genuine: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The Keras model with the genuine weights and an optimiser with state."""
    path = tmp_path_factory.mktemp("keras") / "x.weights.h5"
    model.load_weights(str(write_checkpoint(path, genuine, "keras3")))
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def _recognised(path: Path) -> tuple[str | None, str, int]:
    checkpoint = read_checkpoint(path)
    assert checkpoint.conversion is not None
    conversion = checkpoint.conversion
    return checkpoint.metadata.zoo, conversion.layout, len(conversion.ignored)


def test_what_keras_3_saves_is_read(trained: Any, tmp_path: Path) -> None:
    """Weights alone, and those inside a .keras file with its optimiser, are recognised."""
    trained.save_weights(str(tmp_path / "x.weights.h5"))
    zoo, layout, _ = _recognised(tmp_path / "x.weights.h5")
    assert (zoo, layout) == ("rgb_scratch", "keras3")
    trained.save(str(tmp_path / "x.keras"))
    with zipfile.ZipFile(tmp_path / "x.keras") as archive:
        archive.extract("model.weights.h5", tmp_path)
    for name in ("x.keras", "model.weights.h5"):
        zoo, layout, ignored = _recognised(tmp_path / name)
        assert (zoo, layout) == ("rgb_scratch", "keras3")
        assert ignored > 200  # Adam's moments


def test_what_older_keras_saves_is_read(trained: Any, tmp_path: Path) -> None:
    """The older layout, of weights alone and of a whole model, is recognised."""
    legacy = pytest.importorskip("keras.src.legacy.saving.legacy_h5_format")
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        legacy.save_weights_to_hdf5_group(file, trained)
    with h5py.File(tmp_path / "model.h5", "w") as file:
        legacy.save_weights_to_hdf5_group(file.create_group("model_weights"), trained)
    for name in ("weights.h5", "model.h5"):
        assert _recognised(tmp_path / name) == ("rgb_scratch", "keras", 0)


def test_tensorflow_2_checkpoint_is_read(trained: Any, tmp_path: Path) -> None:
    """Names that are paths through Python objects are resolved by the object graph."""
    prefix = tf.train.Checkpoint(model=trained).save(str(tmp_path / "ck"))
    zoo, layout, ignored = _recognised(Path(prefix))
    assert (zoo, layout) == ("rgb_scratch", "keras")
    assert ignored > 200


def test_mutants_of_a_tensorflow_2_checkpoint(tmp_path: Path) -> None:
    """Damage to what TensorFlow saves, its object graph too, gives an error of ours or tensors."""
    kernel = tf.Variable(np.arange(12, dtype="f4").reshape(3, 4), name="layer/kernel")
    bias = tf.Variable(np.zeros(4, "f4"), name="layer/bias")
    prefix = tf.train.Checkpoint(kernel=kernel, bias=bias).save(str(tmp_path / "ck"))
    index = Path(f"{prefix}.index")
    assert set(formats.read(index).tensors) >= {"layer/kernel", "layer/bias"}
    files = sorted(tmp_path.iterdir())
    for target in (index, index.with_name(f"{index.stem}.data-00000-of-00001")):
        read_mutants(tmp_path, target, index, 200)
    assert sorted(tmp_path.iterdir()) == files


def test_saved_model_is_read(genuine: Checkpoint, tmp_path: Path) -> None:
    """The folder of a SavedModel, as TF-Hub has them, is read by its variables' names."""

    class Module(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.all = [
                tf.Variable(np.ascontiguousarray(array), name=name)
                for name, array in _foreign(genuine).items()
            ]

    tf.saved_model.save(Module(), str(tmp_path / "hub"))
    assert _recognised(tmp_path / "hub")[:2] == ("rgb_scratch", "deepmind")
