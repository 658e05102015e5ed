"""Every error i3dzoo raises on purpose.

A message names the file, the key, what was expected, what was found and what to do. Each class is
also the builtin exception that a caller who does not know i3dzoo would catch.
"""

__all__ = [
    "ChecksumError",
    "ConverterError",
    "DatasetError",
    "DependencyError",
    "DeviceError",
    "FetchError",
    "FormatError",
    "I3DZooError",
    "ManifestError",
    "MappingError",
    "MetadataError",
    "MissingFileError",
    "OfflineError",
    "OutputError",
    "PushError",
    "ShapeError",
    "UnknownNameError",
    "UnreachableError",
    "UnsafeFileError",
    "VideoError",
]


class I3DZooError(Exception):
    """The root of all errors that i3dzoo raises on purpose.

    ```
    I3DZooError
    ├── MissingFileError (FileNotFoundError)  a file that was named is not there
    ├── OutputError      (OSError)            an output exists, or cannot be written
    ├── FormatError      (ValueError)         a file is truncated, corrupt or of no known format
    │   ├── ChecksumError                     its bytes are not the bytes that were recorded
    │   └── UnsafeFileError                   it tries to run code or to reach outside itself
    ├── MappingError     (ValueError)         tensors that meet no rule, several, or are missing
    │   └── ShapeError                        a tensor or clip of the wrong shape
    ├── MetadataError    (ValueError)         a checkpoint's description of itself is wrong
    ├── ConverterError   (ValueError)         a converter table breaks its own law
    ├── ManifestError    (ValueError)         a manifest breaks its own law
    ├── UnknownNameError (LookupError)        no such model, layout, label set or endpoint
    ├── FetchError       (ConnectionError)    no source could deliver
    │   ├── OfflineError                      the network was not allowed and was needed
    │   └── UnreachableError                  a host does not answer, or there is no network
    │   └── OfflineError                      the network was not allowed and was needed
    ├── PushError        (ConnectionError)    the Hub did not take what was pushed
    ├── VideoError       (ValueError)         a video that cannot be decoded
    ├── DatasetError     (ValueError)         a dataset that is incomplete or malformed
    ├── DeviceError      (RuntimeError)       no GPU, or not the one that is needed
    └── DependencyError  (ImportError)        an optional package is not installed
    ```
    """


class MissingFileError(I3DZooError, FileNotFoundError):
    """A file that was named is not there."""


class OutputError(I3DZooError, OSError):
    """An output exists already, or cannot be written."""


class FormatError(I3DZooError, ValueError):
    """A file is truncated, corrupt, or of no format that i3dzoo knows."""


class ChecksumError(FormatError):
    """Bytes are not the bytes that were recorded."""


class UnsafeFileError(FormatError):
    """A file tries to run code, to reach outside itself, or to take absurd amounts of memory."""


class MappingError(I3DZooError, ValueError):
    """Tensors meet no rule or several, or expected ones are missing."""


class ShapeError(MappingError):
    """A tensor or a clip has the wrong shape."""


class MetadataError(I3DZooError, ValueError):
    """A checkpoint's description of itself is missing, malformed or contradicts its tensors."""


class ConverterError(I3DZooError, ValueError):
    """A converter table has unknown keys, or a rule that cannot be used both ways."""


class ManifestError(I3DZooError, ValueError):
    """A manifest has unknown, missing or malformed entries."""


class UnknownNameError(I3DZooError, LookupError):
    """No model, layout, label set or endpoint has this name."""


class FetchError(I3DZooError, ConnectionError):
    """No source could deliver a file."""


class OfflineError(FetchError):
    """The network is needed and was not allowed."""


class UnreachableError(FetchError):
    """A host cannot be reached: no such name, no answer, or no network at all."""


class PushError(I3DZooError, ConnectionError):
    """The Hub did not take what was pushed."""


class VideoError(I3DZooError, ValueError):
    """A video cannot be decoded, or has too few frames."""


class DatasetError(I3DZooError, ValueError):
    """A dataset, its split lists or its index is incomplete or malformed."""


class DeviceError(I3DZooError, RuntimeError):
    """There is no GPU, it is not the one that is needed, or it failed."""


class DependencyError(I3DZooError, ImportError):
    """An optional package is not installed; the message says which extra brings it."""
