"""Parity of the network with TensorFlow: its reader, its SAME padding, its convolutions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.lazy import tensorflow as tf

from i3dzoo import formats
from i3dzoo.arrays import Tensors, bfloat16
from i3dzoo.checkpoints import convert, converter
from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint
from i3dzoo.fetch.find import open_checkpoint
from i3dzoo.network.architecture import BLOCKS
from i3dzoo.pretrained import InceptionI3d, build

pytestmark = pytest.mark.tensorflow

SCOPE = "RGB/inception_i3d/"


@pytest.fixture(scope="module")
def bundle(genuine: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The genuine weights in DeepMind's layout, written by TensorFlow itself; the prefix."""
    tensors = convert.from_canonical("", genuine.tensors, converter.table("deepmind")).tensors
    prefix = tmp_path_factory.mktemp("tf") / "model.ckpt"
    names = sorted(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(np.ascontiguousarray(tensors[name])) for name in names],
    )
    return prefix


def _reference(read: Callable[[str], Any], x: Any) -> Any:
    """I3D in plain TensorFlow operations: [B, T, H, W, C] to logits [B, classes]."""

    def unit(x: Any, name: str, stride: int = 1) -> Any:
        strides = [1, stride, stride, stride, 1]
        y = tf.nn.conv3d(x, read(f"{name}/conv_3d/w"), strides, "SAME")
        mean, variance, offset = (
            read(f"{name}/batch_norm/{part}") for part in ("moving_mean", "moving_variance", "beta")
        )
        return tf.nn.relu(tf.nn.batch_normalization(y, mean, variance, offset, None, 1e-3))

    def pool(x: Any, kernel: list[int], stride: list[int]) -> Any:
        return tf.nn.max_pool3d(x, [1, *kernel, 1], [1, *stride, 1], "SAME")

    def mixed(x: Any, name: str) -> Any:
        third = "Conv3d_0a_3x3" if name == "Mixed_5b" else "Conv3d_0b_3x3"
        b1 = unit(unit(x, f"{name}/Branch_1/Conv3d_0a_1x1"), f"{name}/Branch_1/Conv3d_0b_3x3")
        b2 = unit(unit(x, f"{name}/Branch_2/Conv3d_0a_1x1"), f"{name}/Branch_2/{third}")
        b3 = unit(pool(x, [3, 3, 3], [1, 1, 1]), f"{name}/Branch_3/Conv3d_0b_1x1")
        return tf.concat([unit(x, f"{name}/Branch_0/Conv3d_0a_1x1"), b1, b2, b3], 4)

    x = pool(unit(x, "Conv3d_1a_7x7", 2), [1, 3, 3], [1, 2, 2])
    x = pool(unit(unit(x, "Conv3d_2b_1x1"), "Conv3d_2c_3x3"), [1, 3, 3], [1, 2, 2])
    for block in BLOCKS:
        if block == "Mixed_4b":
            x = pool(x, [3, 3, 3], [2, 2, 2])
        elif block == "Mixed_5b":
            x = pool(x, [2, 2, 2], [2, 2, 2])
        x = mixed(x, block)
    x = tf.nn.avg_pool3d(x, [1, 2, 7, 7, 1], 1, "VALID")
    head = "Logits/Conv3d_0c_1x1/conv_3d"
    x = tf.nn.conv3d(x, read(f"{head}/w"), [1] * 5, "SAME") + read(f"{head}/b")
    return tf.reduce_mean(x, [1, 2, 3])


@pytest.fixture(scope="module")
def network(bundle: Path) -> InceptionI3d:
    """Our network with the weights in TensorFlow's file, read by our reader."""
    return build(read_checkpoint(bundle))


@pytest.fixture(scope="module")
def reference(bundle: Path) -> Callable[[Any], Any]:
    """The reference graph with the weights in TensorFlow's file, read by TensorFlow."""
    reader = tf.train.load_checkpoint(str(bundle))
    return lambda x: _reference(lambda name: reader.get_tensor(SCOPE + name), x)


def test_checkpoint_by_tensorflow(bundle: Path, genuine: Checkpoint) -> None:
    """Every tensor of a checkpoint that TensorFlow wrote is read to the bit, with its CRC."""
    checkpoint = open_checkpoint(bundle)
    assert checkpoint.checked
    assert checkpoint.metadata.zoo == "rgb_scratch"
    for name, array in genuine.tensors.items():
        np.testing.assert_array_equal(checkpoint.tensors[name], array)


def test_shards_and_dtypes(tmp_path: Path) -> None:
    """A checkpoint that TensorFlow merged from shards is read, with every supported type."""
    arrays = {
        "half": np.arange(3, dtype="f2"),
        "float": np.arange(6, dtype="f4").reshape(2, 3),
        "double": np.arange(3, dtype="f8"),
        "long": np.array(7, dtype="i8"),
        "bfloat16": np.arange(3, dtype=bfloat16()),
    }
    prefixes = []
    for number, (name, array) in enumerate(arrays.items()):
        prefixes.append(str(tmp_path / f"part{number}"))
        tf.raw_ops.SaveV2(
            prefix=prefixes[-1],
            tensor_names=[name],
            shape_and_slices=[""],
            tensors=[tf.constant(array)],
        )
    merged = tmp_path / "merged"
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=prefixes, destination_prefix=str(merged))
    assert len(list(tmp_path.glob("merged.data-*-of-00005"))) == 5
    container = formats.read(merged)
    assert container.tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(container.tensors[name], array)
        assert container.tensors[name].dtype == array.dtype


@pytest.mark.real_data
def test_checkpoint_by_deepmind(deepmind_bundle: Path, genuine: Checkpoint) -> None:
    """TensorFlow reads the same tensors from DeepMind's own checkpoint."""
    reader = tf.train.load_checkpoint(str(deepmind_bundle.with_suffix("")))
    expected: Tensors = convert.from_canonical(
        "", genuine.tensors, converter.table("deepmind")
    ).tensors
    shapes = reader.get_variable_to_shape_map()
    assert shapes.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(reader.get_tensor(name), array)


@pytest.mark.parametrize("shape", [(1, 3, 17, 210, 218), (2, 3, 9, 224, 224), (1, 3, 10, 225, 233)])
def test_parity(
    network: InceptionI3d, reference: Callable[[Any], Any], shape: tuple[int, ...]
) -> None:
    """Our logits equal TensorFlow's within 1e-4, at even and odd sizes."""
    x = np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype("f4")
    expected = np.asarray(reference(x.transpose(0, 2, 3, 4, 1)))
    with torch.inference_mode():
        logits = network(torch.from_numpy(x)).numpy()
    assert np.linalg.norm(logits - expected) <= 1e-4 * np.linalg.norm(expected)
    np.testing.assert_array_equal(logits.argmax(1), expected.argmax(1))
