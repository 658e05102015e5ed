"""Types for arrays by name, which all formats and conversions use."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Tensors = Mapping[str, Array]


def bfloat16() -> np.dtype[Any]:
    """Return the numpy dtype for bfloat16, which the package ml_dtypes provides."""
    import ml_dtypes

    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def flat_bytes(array: Array) -> NDArray[np.uint8]:
    """Return the bytes of an array in C order; copy only if the array is not contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
