"""Bounds on what a checkpoint file can make its reader do, each with its reason.

Together they keep a promise: reading a file of n bytes takes at most 2n bytes of memory and 300 MB,
and a file that is refused is refused within 5 seconds. Text (JSON, YAML, TOML) has bounds of its
own, in `i3dzoo.records`.
"""

from typing import Final

MAX_TENSORS: Final = 10_000
"""Tensors in a file. I3D has 287, with the slots of an optimiser about 1,000."""

MAX_NAME: Final = 1000
"""Characters of a name. Many long names with a shared prefix could fill the memory."""

MAX_AXES: Final = 32
"""Axes of an array; numpy before version 2 has no more."""

MAX_LENGTH: Final = 1 << 48
"""Length of an axis; the product of a few longer ones takes long to compute."""

MAX_HEADER: Final = 4 << 20
"""Bytes of the JSON header of a safetensors file, or of the extra files of a TorchScript archive;
that of I3D has 60 kB with its checksums."""

MAX_INDEX: Final = 16 << 20
"""Bytes of the index of a TensorFlow checkpoint, also after decompression; I3D's has 20 kB."""

MAX_TABLE: Final = 128 << 20
"""Bytes of a TensorFlow checkpoint of format V1; TF-slim's Inception-v1 has 26 MB, with the slots
of an optimiser 80 MB."""

MAX_TABLE_UNPACKED: Final = 64 << 20
"""Bytes that its blocks unpack to beyond its size. Snappy does not shorten weights much."""

MAX_FIELDS: Final = 500_000
"""Protocol buffer fields that are decoded for one file, at about 2 µs each. A traced ONNX graph of
2,800 nodes has 50,000."""

MAX_DIRECTORY: Final = 4 << 20
"""Bytes of the directory of a zip archive. An entry has about 100 bytes, and zipfile takes ten
times as much for it."""

MAX_OPCODES: Final = 300_000
"""Opcodes of one pickle; each can create an object. A checkpoint with its optimiser has 10,000."""

MAX_OBJECT: Final = 32 << 20
"""Bytes of one text or array within a pickle; the largest array of I3D has 8 MB, in float64 16."""

MAX_PICKLE: Final = 200 << 20
"""Bytes of the pickle of a PyTorch file besides the tensors. It may contain NumPy arrays: those of
I3D have 50 MB, in float64 and protocol 2 150 MB."""

MAX_TEXT: Final = 64 << 20
"""Bytes that the texts of a pickle take beyond the size of the file: one emoji makes four bytes of
each letter."""

MAX_REPEATED: Final = 64 << 20
"""Bytes that expanded tensors of PyTorch have beyond their storages."""

MAX_UNPACKED: Final = 200 << 20
"""Bytes that compressed HDF5 datasets unpack to, beyond twice the file; I3D has 50 MB, with the
slots of an optimiser 150 MB."""
