"""One HDF5 file for the features of all videos of a folder.

A process that is killed while it writes to an HDF5 file leaves it damaged. Each video is therefore
written to a file of its own, and the HDF5 file is replaced by one that has them, too.
"""

import shutil
from pathlib import Path
from typing import Final

import numpy as np

from i3dzoo.features.outputs import PARTS
from i3dzoo.files import atomic_write

NAME: Final = "features.h5"


def pack(folder: Path) -> Path:
    """Move what is not yet in the HDF5 file of a folder into it, and return its path.

    `x` in the file is the group of the video x, with `features` and `spans` or the `keys` of the
    settings; the video a/x is in the group a/x.

    Raises:
        OutputError: The file cannot be written.
    """
    import h5py

    path, parts = folder / NAME, folder / PARTS
    files = sorted(parts.rglob("*.npz")) if parts.is_dir() else []
    if not files:
        return path
    with atomic_write(path) as output:
        if path.exists():
            with path.open("rb") as old:
                shutil.copyfileobj(old, output)
            output.flush()
        with h5py.File(output, "a" if path.exists() else "w", track_order=True) as packed:
            for part in files:
                name = part.relative_to(parts).as_posix().removesuffix(".npz")
                if name in packed:
                    del packed[name]
                with np.load(part, allow_pickle=False) as arrays:
                    for key in arrays.files:
                        value = arrays[key]
                        packed[f"{name}/{key}"] = str(value) if value.dtype.kind == "U" else value
    shutil.rmtree(parts)
    return path
