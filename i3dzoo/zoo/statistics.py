"""The tensors of a checkpoint one by one: shape, numbers and checksum."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from i3dzoo.arrays import Tensors
from i3dzoo.zoo.match import checksum


@dataclass(frozen=True)
class TensorStatistics:
    """What can be said about one canonical tensor.

    Attributes:
        name: Canonical name.
        shape: Length of each axis, in PyTorch's order.
        dtype: Number format in the file.
        min: The smallest number; NaN if there is one in the tensor.
        max: The largest number; NaN if there is one in the tensor.
        mean: Mean, computed in float64.
        std: Standard deviation, of all numbers (not of a sample), computed in float64.
        crc32c: Masked CRC32C of the bytes in DeepMind's axis order, as TensorFlow's checkpoints and
            the manifests have it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    min: float
    max: float
    mean: float
    std: float
    crc32c: str

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of `i3dzoo info --tensors --json`."""
        return asdict(self)


def tensor_statistics(tensors: Tensors) -> Iterator[TensorStatistics]:
    """Yield the statistics of each tensor, in the order of the network.

    Examples:
        >>> import numpy as np
        >>> from i3dzoo.zoo.statistics import tensor_statistics
        >>> (bias,) = tensor_statistics({"bias": np.array([1, 3], "float32")})
        >>> bias.mean, bias.std, bias.crc32c
        (2.0, 1.0, 'c1ee9a86')
    """
    for name, array in tensors.items():
        numbers = array.astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity has no standard deviation
            yield TensorStatistics(
                name,
                array.shape,
                str(array.dtype),
                float(numbers.min()),
                float(numbers.max()),
                float(numbers.mean()),
                float(numbers.std()),
                f"{checksum(array):08x}",
            )
