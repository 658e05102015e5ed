"""List the content of an HDF5 file, and copy out what cannot be mapped, in a separate process.

libhdf5 crashes or hangs on some damaged files. `i3dzoo.formats.hdf5` therefore runs the source of
this module with `python -I -c`; it imports nothing from i3dzoo.

Standard input is a job in JSON. Standard output is a file that can be truncated: the bytes of the
copied datasets, then the listing in JSON, then the length of the listing in 8 bytes.
"""

import contextlib
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

try:
    import h5py
    import numpy as np
except ImportError:
    sys.exit(3)

_CONTIGUOUS, _CHUNKED, _VIRTUAL = h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED, h5py.h5d.VIRTUAL


class FormatError(Exception):
    """Stands for the error of this name in i3dzoo.errors, which the caller raises."""


class UnsafeFileError(FormatError):
    """Stands for the error of this name in i3dzoo.errors."""


class Listing:
    """The groups and datasets of a file."""

    def __init__(self, job: dict[str, Any], output: Any) -> None:
        self.job = job
        self.output = output
        self.groups: dict[str, dict[str, list[str]]] = {}
        self.datasets: dict[str, dict[str, Any]] = {}
        self.objects = self.characters = self.copied = 0

    def count(self, text: str) -> str:
        """Count a text against the limit on all texts."""
        self.characters += len(text)
        if self.characters > self.job["max_characters"]:
            raise UnsafeFileError(
                f"its names and attributes have more than {self.job['max_characters']} characters"
            )
        return text

    def add_group(self, group: Any, path: str, depth: int = 0) -> None:
        """Add a group and everything below it."""
        if depth > self.job["max_depth"]:
            raise FormatError(f"{path[:100]} is nested too deeply")
        self.groups[self.count(path)] = self.texts(group)
        for key in group:
            self.objects += 1
            if self.objects > self.job["max_objects"]:
                raise FormatError(f"has more than {self.job['max_objects']} objects")
            below = f"{path}/{key}".lstrip("/")
            is_new = below not in self.groups and below not in self.datasets
            if not is_new or not 0 < len(key.encode()) <= self.job["max_name"]:
                raise FormatError(f"the name {below[:100]!r} is too long or not unique")
            link = group.get(key, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise UnsafeFileError(f"{below} is a link to another file")
            if isinstance(link, h5py.SoftLink):
                raise UnsafeFileError(f"{below} is a symbolic link")
            item = group[key]
            if isinstance(item, h5py.Group):
                self.add_group(item, below, depth + 1)
            elif isinstance(item, h5py.Dataset):
                try:
                    self.datasets[self.count(below)] = self.dataset(item, below)
                except (OSError, TypeError, ValueError) as error:
                    raise FormatError(
                        f"{below} is truncated or corrupt: {str(error)[:300]}"
                    ) from error
            else:
                raise FormatError(f"{below} is neither a group nor a dataset")

    def texts(self, group: Any) -> dict[str, list[str]]:
        """Return those text attributes of a group that are needed, as lists."""
        attributes = {}
        for name in self.job["attributes"]:
            if name not in group.attrs:
                continue
            stored = group.attrs.get_id(name)
            if stored.shape is None or h5py.check_string_dtype(stored.dtype) is None:
                continue
            if math.prod(stored.shape) * stored.dtype.itemsize > self.job["max_characters"]:
                raise UnsafeFileError(f"the attribute {name} takes too much memory")
            value = group.attrs[name]
            texts = [value] if isinstance(value, str | bytes) else value.ravel().tolist()
            attributes[name] = [
                self.count(text if isinstance(text, str) else text.partition(b"\0")[0].decode())
                for text in texts
            ]
        return attributes

    def dataset(self, dataset: Any, path: str) -> dict[str, Any]:
        """Return where the bytes of a dataset are; copy them out if they are not in one piece."""
        plan = dataset.id.get_create_plist()
        layout = plan.get_layout()
        if plan.get_external_count() or layout == _VIRTUAL:
            raise UnsafeFileError(f"{path} has its data in another file")
        dtype, shape = dataset.dtype, dataset.shape
        if shape is None or dtype.kind not in "iuf" or dtype.itemsize > 8:
            raise FormatError(f"{path} is of type {str(dtype)[:100]}, not an array of numbers")
        size = math.prod(shape) * dtype.itemsize
        entry = {"shape": shape, "dtype": dtype.newbyteorder("<").str, "copied": False, "start": 0}
        if not size:
            return entry
        stored = dataset.id.get_storage_size()
        if not stored or (layout == _CONTIGUOUS and stored != size):
            raise FormatError(
                f"{path} of shape {shape} has {stored} bytes of data; expected {size}"
            )
        is_native = dataset.id.get_type().equal(h5py.h5t.py_create(dtype))
        if layout == _CONTIGUOUS and is_native and dtype.str[0] != ">":
            return {**entry, "start": dataset.id.get_offset()}
        if layout == _CHUNKED:
            check_chunks(dataset, plan, path)
        self.copied += size
        if self.copied > self.job["max_copied"]:
            raise UnsafeFileError(
                f"{path} of shape {shape} unpacks to {size} bytes; at most "
                f"{self.job['max_copied']} bytes in all are unpacked",
            )
        start = self.output.tell()
        content = np.ascontiguousarray(dataset[()], entry["dtype"]).data
        try:
            self.output.write(content)
            self.output.flush()
        except OSError as error:
            raise FormatError(
                f"cannot be unpacked into {self.job['folder']}: {error.strerror}"
            ) from error
        return {**entry, "copied": True, "start": start}


def check_chunks(dataset: Any, plan: Any, path: str) -> None:
    """Refuse filters that libhdf5 does not have, and chunks that were never written."""
    for number in range(plan.get_nfilters()):
        code, _, _, name = plan.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            raise FormatError(
                f"{path} is compressed with the filter {code} ({name[:100]!r}), which i3dzoo "
                "does not read; write it again with gzip or uncompressed (h5repack -f NONE)",
            )
    expected = math.prod(
        -(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True)
    )
    if dataset.id.get_num_chunks() != expected:
        raise FormatError(f"{path} has {dataset.id.get_num_chunks()} chunks; expected {expected}")


def set_limits(job: dict[str, Any]) -> None:
    """Limit processor time, memory and output, on systems that have such limits."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: job["seconds"],
        resource.RLIMIT_AS: job["memory"],
        resource.RLIMIT_FSIZE: job["max_copied"] + 10 * job["max_characters"],
    }
    for limit, amount in limits.items():
        _, hard = resource.getrlimit(limit)
        with contextlib.suppress(OSError, ValueError):
            soft = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
            resource.setrlimit(limit, (soft, hard))


def main() -> None:
    """Read the job, and write the listing or the reason why there is none."""
    job = json.load(sys.stdin)
    output = sys.stdout.buffer
    set_limits(job)
    document: dict[str, Any]
    try:
        with Path(job["path"]).open("rb") as file:
            file.seek(job["start"])
            content = io.BytesIO(file.read(job["size"]))
        listing = Listing(job, output)
        with h5py.File(content, "r") as root:
            listing.add_group(root, "")
        document = {"groups": listing.groups, "datasets": listing.datasets}
    except FormatError as error:
        document = {"error": type(error).__name__, "message": str(error)}
    except Exception as error:  # libhdf5 and h5py raise nearly every kind of error
        reason = str(error) or type(error).__name__
        document = {"error": "FormatError", "message": f"is truncated or corrupt: {reason[:300]}"}
    if "error" in document:  # room for it, if the disk is full
        output.seek(0)
        output.truncate()
    raw = json.dumps(document).encode()
    output.write(raw + len(raw).to_bytes(8, "little"))


if __name__ == "__main__":
    main()
