"""TensorFlow 1's bilinear resizing, against TensorFlow."""

import numpy as np
import pytest
import torch
from helpers.lazy import tensorflow as tf

from i3dzoo.fvd.resize import resize_tf1


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        ((64, 64), (224, 224)),
        ((37, 53), (224, 224)),
        ((301, 417), (224, 224)),
        ((223, 225), (224, 224)),
        ((224, 224), (224, 224)),
        ((1, 1), (224, 224)),
        ((5, 7), (11, 3)),
    ],
)
def test_equals_tensorflow(held: tuple[int, int], wanted: tuple[int, int]) -> None:
    """The same operations in the same order give the same bits, also for odd sizes."""
    frames = np.random.default_rng(0).random((2, *held, 3), dtype="f4") * 255
    expected = tf.raw_ops.ResizeBilinear(images=frames, size=wanted).numpy()
    resized = resize_tf1(torch.from_numpy(frames).permute(0, 3, 1, 2), wanted)
    np.testing.assert_array_equal(resized.permute(0, 2, 3, 1).numpy(), expected)


def test_is_not_pytorchs() -> None:
    """Pixel centres do not coincide: the first row is copied, and the last is repeated."""
    ramp = torch.arange(4, dtype=torch.float32).expand(1, 4, 4)
    row = resize_tf1(ramp, (4, 8))[0, 0]
    assert row.tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]
