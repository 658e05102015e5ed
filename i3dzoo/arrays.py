"""Named arrays, which is what every format reads into and every conversion works on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Tensors", "bfloat16", "flat_bytes"]

Array = NDArray[Any]
Tensors = Mapping[str, Array]


def bfloat16() -> np.dtype[Any]:
    """Return numpy's dtype for bfloat16, which a package of its own provides."""
    import ml_dtypes

    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def flat_bytes(array: Array) -> NDArray[np.uint8]:
    """Return an array's bytes in C order; a copy only where the array is not contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
