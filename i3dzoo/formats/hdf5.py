"""Read HDF5 files with h5py in a child process.

libhdf5 crashes or hangs on some damaged files (3 crashes and 1 hang in 1,894 mutants of Keras
files, h5py 3.16), and no exception handler catches that. So a child process opens the file. It
returns where each dataset is stored, which this process then maps. Datasets that are chunked,
compressed or of another byte order are copied out by the child.
"""

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from i3dzoo.arrays import Array
from i3dzoo.errors import DependencyError, FormatError, UnsafeFileError
from i3dzoo.formats.limits import MAX_NAME, MAX_TENSORS, MAX_UNPACKED

_ERRORS: Final = {"FormatError": FormatError, "UnsafeFileError": UnsafeFileError}
_IMPORT_FAILED: Final = 3
_CHILD_SECONDS: Final = 120  # loading h5py from a slow disk included
_CHILD_MEMORY: Final = 1 << 30  # of addresses, most of which libraries reserve and never use
_LIMITS: Final = {
    "seconds": 5,  # of processor time
    "max_characters": 4 << 20,
    "max_objects": 4 * MAX_TENSORS,
    "max_name": MAX_NAME,
    "max_depth": 20,
}


@dataclass(frozen=True)
class Hdf5:
    """The requested text attributes of every group, and the arrays, by path.

    Paths have no leading slash; the root is the empty path.
    """

    groups: dict[str, dict[str, list[str]]]
    datasets: dict[str, Array]


def read(path: Path, attributes: tuple[str, ...], part: tuple[int, int] | None = None) -> Hdf5:
    """Read all groups, with these text attributes, and all datasets.

    `part` is the start and size in bytes of the HDF5 file within `path`, if it is not all of it.
    """
    start, size = part or (0, path.stat().st_size)
    with tempfile.TemporaryFile() as output:
        job = {
            "path": os.fspath(path),
            "start": start,
            "size": size,
            "attributes": attributes,
            "folder": tempfile.gettempdir(),
            "memory": 2 * size + _CHILD_MEMORY,
            "max_copied": size + MAX_UNPACKED,
            **_LIMITS,
        }
        _run_child(path, job, output)
        copies: Array = np.memmap(output, "u1", "r")
    length = int.from_bytes(copies[-8:].tobytes(), "little")
    listing = json.loads(copies[-8 - length : -8].tobytes())
    if "error" in listing:
        raise _ERRORS[listing["error"]](f"{path}: {listing['message']}")
    data: Array = np.memmap(path, "u1", "r")[start : start + size]
    datasets = {
        name: np.ndarray(
            entry["shape"],
            entry["dtype"],
            buffer=copies if entry["copied"] else data,
            offset=entry["start"],
        )
        for name, entry in listing["datasets"].items()
    }
    return Hdf5(listing["groups"], datasets)


def _run_child(path: Path, job: dict[str, Any], output: IO[bytes]) -> None:
    import pkgutil  # only HDF5 needs these; converting other files starts faster without them
    import subprocess

    source = pkgutil.get_data("i3dzoo.formats", "_hdf5_child.py") or b""
    # -I keeps the environment and the working folder out; h5py is where this process has it
    program = f"import sys\nsys.path[:] = {[entry for entry in sys.path if entry]}\n"
    environment = {
        **os.environ,
        "HDF5_PLUGIN_PRELOAD": "::",  # a file does not choose libraries to load
        "HDF5_USE_FILE_LOCKING": "FALSE",
        "OPENBLAS_NUM_THREADS": "1",
    }
    try:
        status = subprocess.run(  # noqa: S603 - this interpreter, with our own source
            [sys.executable, "-I", "-c", program + source.decode()],
            input=json.dumps(job).encode(),
            stdout=output,
            stderr=subprocess.DEVNULL,
            timeout=_CHILD_SECONDS,
            env=environment,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        status = -1
    if status == _IMPORT_FAILED:
        raise DependencyError(f"{path}: h5py cannot be imported; reinstall it (pip install h5py)")
    if status:
        raise FormatError(
            f"{path}: is corrupt: the HDF5 library crashes or does not finish on it (exit status "
            f"{status}); download it again"
        )
