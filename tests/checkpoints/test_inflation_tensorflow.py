"""The law of the boring video, with TensorFlow's operators and checkpoints as the 2D side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.images import boring_endpoints, image, largest_difference
from helpers.lazy import tensorflow as tf

from i3dzoo.arrays import Array
from i3dzoo.checkpoints.inflation import deflate, inflate, write_deflated
from i3dzoo.network.architecture import BLOCKS, DEEPMIND, ENDPOINTS

pytestmark = pytest.mark.tensorflow

SCOPE = "InceptionV1"
CLASSES = 6


@pytest.fixture(scope="module")
def variables() -> dict[str, Array]:
    """Random variables with the names of slim's inception_v1.py, and the number of steps."""
    generator = np.random.default_rng(0)
    arrays: dict[str, Array] = {}

    def conv(name: str, cin: int, out: int, kernel: int) -> None:
        scale = (2 / (cin * kernel**2)) ** 0.5
        own = f"{SCOPE}/{name}"
        weights = generator.normal(0, scale, (kernel, kernel, cin, out))
        arrays[f"{own}/weights"] = weights.astype("f4")
        for part in ("beta", "moving_mean"):
            arrays[f"{own}/BatchNorm/{part}"] = generator.normal(0, 0.1, out).astype("f4")
        variance = generator.uniform(0.5, 1.5, out).astype("f4")
        arrays[f"{own}/BatchNorm/moving_variance"] = variance

    conv("Conv2d_1a_7x7", 3, 64, 7)
    conv("Conv2d_2b_1x1", 64, 64, 1)
    conv("Conv2d_2c_3x3", 64, 192, 3)
    for block, (cin, b0, b1a, b1b, b2a, b2b, b3) in BLOCKS.items():
        conv(f"{block}/Branch_0/Conv2d_0a_1x1", cin, b0, 1)
        conv(f"{block}/Branch_1/Conv2d_0a_1x1", cin, b1a, 1)
        conv(f"{block}/Branch_1/Conv2d_0b_3x3", b1a, b1b, 3)
        conv(f"{block}/Branch_2/Conv2d_0a_1x1", cin, b2a, 1)
        conv(f"{block}/Branch_2/{_third(block)}", b2a, b2b, 3)
        conv(f"{block}/Branch_3/Conv2d_0b_1x1", cin, b3, 1)
    logits = f"{SCOPE}/Logits/Conv2d_0c_1x1"
    arrays[f"{logits}/weights"] = generator.normal(0, 0.1, (1, 1, 1024, CLASSES)).astype("f4")
    arrays[f"{logits}/biases"] = generator.normal(0, 0.1, CLASSES).astype("f4")
    arrays["global_step"] = np.array(9, "i8")
    return arrays


def _third(block: str) -> str:
    return "Conv2d_0a_3x3" if block == "Mixed_5b" else "Conv2d_0b_3x3"


def _endpoints(arrays: Mapping[str, Array], pixels: Array) -> dict[str, Array]:
    """Inception-v1 as slim's inception_v1.py computes it; each endpoint [C, ...]."""

    def unit(x: Any, name: str, stride: int = 1) -> Any:
        own = f"{SCOPE}/{name}"
        y = tf.nn.conv2d(x, arrays[f"{own}/weights"], stride, "SAME")
        mean, variance, beta = (
            arrays[f"{own}/BatchNorm/{part}"] for part in ("moving_mean", "moving_variance", "beta")
        )
        return tf.nn.relu(tf.nn.batch_normalization(y, mean, variance, beta, None, 1e-3))

    def block(x: Any, name: str) -> Any:
        pooled = tf.nn.max_pool2d(x, 3, 1, "SAME")
        parts = [
            unit(x, f"{name}/Branch_0/Conv2d_0a_1x1"),
            unit(unit(x, f"{name}/Branch_1/Conv2d_0a_1x1"), f"{name}/Branch_1/Conv2d_0b_3x3"),
            unit(unit(x, f"{name}/Branch_2/Conv2d_0a_1x1"), f"{name}/Branch_2/{_third(name)}"),
            unit(pooled, f"{name}/Branch_3/Conv2d_0b_1x1"),
        ]
        return tf.concat(parts, 3)

    x = tf.constant((pixels[None].astype("f4") / 255 - 0.5) * 2)
    outputs: dict[str, Any] = {}
    for name in ENDPOINTS:
        if name.startswith("MaxPool3d"):
            x = tf.nn.max_pool2d(x, int(name[-1]), 2, "SAME")
        elif name in BLOCKS:
            x = block(x, name)
        else:
            x = unit(x, name.replace("3d", "2d"), 2 if name.startswith("Conv3d_1a") else 1)
        outputs[name] = x[0].numpy().transpose(2, 0, 1)
    pooled = tf.reduce_mean(x, (1, 2), keepdims=True)
    logits = f"{SCOPE}/Logits/Conv2d_0c_1x1"
    last = tf.nn.conv2d(pooled, arrays[f"{logits}/weights"], 1, "SAME")[0, 0, 0]
    return {**outputs, "logits": last.numpy() + arrays[f"{logits}/biases"]}


@pytest.mark.parametrize(
    ("version", "size", "method"), [(1, (64, 64), "average"), (2, (75, 54), "center")]
)
def test_boring_video(
    variables: dict[str, Array], tmp_path: Path, version: int, size: tuple[int, int], method: Any
) -> None:
    """Every endpoint is TensorFlow's, from checkpoints of both formats, in I3D's own network."""
    path = tmp_path / "inception_v1.ckpt"
    values = [tf.constant(array) for array in variables.values()]
    names = list(variables)
    if version == 1:
        tf.raw_ops.Save(filename=str(path), tensor_names=names, data=values)
    else:
        slices = [""] * len(names)
        tf.raw_ops.SaveV2(
            prefix=str(path), tensor_names=names, shape_and_slices=slices, tensors=values
        )
    checkpoint = inflate(path, method)
    assert checkpoint.metadata.variant == DEEPMIND
    assert checkpoint.metadata.input.mean == (0.5, 0.5, 0.5)
    assert checkpoint.metadata.source.layout == "images/tf-slim"
    pixels = image(*size)
    expected = _endpoints(variables, pixels)
    assert largest_difference(boring_endpoints(checkpoint, pixels), expected) < 1e-4


def test_deflate(variables: dict[str, Array], tmp_path: Path) -> None:
    """TensorFlow reads what deflate writes: the variables of the network of images, to rounding."""
    path = tmp_path / "inception_v1.ckpt"
    values = [tf.constant(array) for array in variables.values()]
    tf.raw_ops.Save(filename=str(path), tensor_names=list(variables), data=values)
    checkpoint = inflate(path)
    assert deflate(checkpoint, "tf-slim").keys() == variables.keys() - {"global_step"}
    index = write_deflated(tmp_path / "back.ckpt", checkpoint, "tf-slim")
    reader = tf.train.load_checkpoint(str(index.with_suffix("")))
    for name in variables.keys() - {"global_step"}:
        np.testing.assert_allclose(reader.get_tensor(name), variables[name], rtol=1e-6, atol=1e-8)
