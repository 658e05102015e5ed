"""TensorFlow and Keras read the files of i3dzoo, and i3dzoo reads theirs."""

import zipfile
from pathlib import Path
from typing import Any

import cramjam
import numpy as np
import pytest
import torch
from helpers import keras_i3d
from helpers.checkpoints import to_layout
from helpers.hostile import block, table
from helpers.lazy import keras
from helpers.lazy import tensorflow as tf
from helpers.mutations import read_mutants

from i3dzoo import formats
from i3dzoo.arrays import Tensors, bfloat16
from i3dzoo.checkpoints import convert, converter
from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.digests import git_blob
from i3dzoo.fetch.find import open_checkpoint
from i3dzoo.formats import tensorflow_bundle
from i3dzoo.network.architecture import canonical_shapes
from i3dzoo.pretrained import build

pytestmark = [
    pytest.mark.tensorflow,
    # Keras raises it for its own variables when it saves them
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning"),
]

h5py = pytest.importorskip("h5py")

CLIP = (16, 32, 32, 3)


def _foreign(genuine: Checkpoint) -> Tensors:
    return convert.from_canonical("", genuine.tensors, converter.table("deepmind")).tensors


@pytest.fixture(scope="module")
def prefix(genuine: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix of the genuine weights in DeepMind's layout, written by i3dzoo."""
    path = tmp_path_factory.mktemp("bundle") / "model.ckpt"
    index = write_checkpoint(path, genuine, "deepmind")
    assert index.name == "model.ckpt.index"
    return path


def test_the_bundle_is_deepminds_to_the_bit(prefix: Path) -> None:
    """The data file and the index equal the published files byte for byte."""
    data = prefix.with_name("model.ckpt.data-00000-of-00001")
    assert git_blob(data) == "fa7df95674dbf3579e7fccd954e51e706b4734c1"
    index = prefix.with_name("model.ckpt.index")
    assert git_blob(index) == "84dd4518e982d9ca6ce1ff02e95fca2e8cbb1f73"


def test_tensorflow_reads_the_bundle(prefix: Path, genuine: Checkpoint) -> None:
    """load_checkpoint returns the same names, shapes and numbers."""
    reader = tf.train.load_checkpoint(str(prefix))
    expected = _foreign(genuine)
    shapes = reader.get_variable_to_shape_map()
    assert shapes == {name: list(array.shape) for name, array in expected.items()}
    for name, array in expected.items():
        np.testing.assert_array_equal(reader.get_tensor(name), array)


def test_tensorflow_reads_the_same_index(test_data: Path) -> None:
    """TensorFlow lists the same tensors as i3dzoo in TF-Hub's index, compressed with Snappy."""
    prefix = test_data / "tfhub" / "variables" / "variables"
    _, entries = tensorflow_bundle.read_index(prefix.with_suffix(".index"))
    shapes = {name: list(entry.shape) for name, entry in entries.items()}
    reader = tf.compat.v1.train.NewCheckpointReader(str(prefix))
    assert shapes == reader.get_variable_to_shape_map()
    assert len(shapes) == 230


@pytest.mark.parametrize("scope", ["RGB/inception_i3d/", ""])
def test_a_module_of_600_classes(tmp_path: Path, scope: str) -> None:
    """TensorFlow's index and its compressed copy are read, with the names of Kinetics-600."""
    ones = {name: np.ones(shape, "f4") for name, shape in canonical_shapes(600).items()}
    tensors = to_layout(ones, "deepmind600")
    prefix = tmp_path / "variables"
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=[scope + name for name in tensors],
        shape_and_slices=[""] * len(tensors),
        tensors=[tf.constant(np.ascontiguousarray(array)) for array in tensors.values()],
    )
    index = prefix.with_suffix(".index")
    for compress in (False, True):
        if compress:
            pairs = tensorflow_bundle.Table(index, index.read_bytes()).pairs()
            index.write_bytes(table(bytes(cramjam.snappy.compress_raw(block(*pairs))), 1))
            reader = tf.train.load_checkpoint(str(prefix))
            assert len(reader.get_variable_to_shape_map()) == 230
        checkpoint = read_checkpoint(tmp_path)
        assert checkpoint.checked
        assert checkpoint.metadata.num_classes == 600


def test_saver_restores_the_bundle(prefix: Path, genuine: Checkpoint) -> None:
    """Saver.restore restores the variables of a graph."""
    expected = _foreign(genuine)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {
            name: tf.compat.v1.get_variable(name, array.shape) for name, array in expected.items()
        }
        tf.compat.v1.train.Saver(variables).restore(session, str(prefix))
        for name, array in session.run(variables).items():
            np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize("dtype", [np.dtype("f2"), bfloat16()], ids=str)
def test_tensorflow_reads_other_dtypes(tmp_path: Path, dtype: np.dtype[Any]) -> None:
    """TensorFlow reads float16, bfloat16, integers and scalars."""
    tensors = {"a/b": np.arange(6).reshape(2, 3).astype(dtype), "n": np.array(7), "ab": np.zeros(2)}
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
    """A clip, and the logits of our network at every point of the last block."""
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
    """The Keras model with our weights computes the same logits as our network."""
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    if how == "keras 3":
        path = write_checkpoint(tmp_path / "x.weights.h5", genuine, "keras3")
        model.load_weights(str(path))
    else:
        path = write_checkpoint(tmp_path / "x.h5", genuine, "keras")
        model.load_weights(str(path), by_name=how == "by name")
    clip, logits = expected
    output = np.asarray(model(clip, training=False))
    np.testing.assert_allclose(output, logits, rtol=1e-4, atol=1e-3 * np.abs(logits).max())


def test_keras_loads_a_trunk(genuine: Checkpoint, tmp_path: Path) -> None:
    """A file without the head loads into the model without the head."""
    trunk = {name: a for name, a in genuine.tensors.items() if not name.startswith("Logits")}
    metadata = genuine.metadata.replace(num_classes=0, labels=None)
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
    checkpoint = open_checkpoint(path)
    assert checkpoint.conversion is not None
    conversion = checkpoint.conversion
    return checkpoint.metadata.zoo, conversion.layout, len(conversion.ignored)


def test_what_keras_3_saves_is_read(trained: Any, tmp_path: Path) -> None:
    """A weights file and a .keras file with an optimiser are recognised."""
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
    """The legacy layout is recognised, of weights and of a whole model."""
    legacy = pytest.importorskip("keras.src.legacy.saving.legacy_h5_format")
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        legacy.save_weights_to_hdf5_group(file, trained)
    with h5py.File(tmp_path / "model.h5", "w") as file:
        legacy.save_weights_to_hdf5_group(file.create_group("model_weights"), trained)
    for name in ("weights.h5", "model.h5"):
        assert _recognised(tmp_path / name) == ("rgb_scratch", "keras", 0)


def test_tensorflow_2_checkpoint_is_read(trained: Any, tmp_path: Path) -> None:
    """Tensors of a TensorFlow 2 checkpoint get the names of their variables."""
    prefix = tf.train.Checkpoint(model=trained).save(str(tmp_path / "ck"))
    zoo, layout, ignored = _recognised(Path(prefix))
    assert (zoo, layout) == ("rgb_scratch", "keras")
    assert ignored > 200


def test_mutants_of_a_tensorflow_2_checkpoint(tmp_path: Path) -> None:
    """Mutants of a TensorFlow 2 checkpoint give tensors or our own errors."""
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
    """The folder of a SavedModel is read by the names of its variables."""

    class Module(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.all = [
                tf.Variable(np.ascontiguousarray(array), name=name)
                for name, array in _foreign(genuine).items()
            ]

    tf.saved_model.save(Module(), str(tmp_path / "hub"))
    assert _recognised(tmp_path / "hub")[:2] == ("rgb_scratch", "deepmind")
