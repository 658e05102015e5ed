"""All errors that i3dzoo raises deliberately; each is also a builtin exception.

A message names the file, the key, what was expected, what was found and what to do.

    I3DZooError
    ├── MissingFileError (FileNotFoundError)  a file does not exist
    ├── OutputError      (OSError)            an output exists already, or cannot be written
    ├── FormatError      (ValueError)         a file is truncated, corrupt or of an unknown format
    │   ├── ChecksumError                     bytes or tensors differ from the recorded ones
    │   └── UnsafeFileError                   a file tries to run code or to read other files
    ├── MappingError     (ValueError)         tensors match no rule or several, or are missing
    │   └── ShapeError                        a tensor or a clip has the wrong shape
    ├── InputTypeError   (TypeError)          frames or a clip have the wrong type
    ├── MetadataError    (ValueError)         the metadata of a checkpoint is malformed or wrong
    ├── OptionError      (ValueError)         options contradict each other, or do not apply
    ├── ConverterError   (ValueError)         a converter table is malformed
    ├── ManifestError    (ValueError)         a manifest is malformed
    ├── UnknownNameError (LookupError)        no such model, layout, label set or endpoint
    ├── FetchError       (ConnectionError)    no source could deliver a file
    │   ├── OfflineError                      the network is needed, but not allowed
    │   └── UnreachableError                  a host does not answer, or there is no network
    ├── PushError        (ConnectionError)    the Hub refuses a push
    ├── VideoError       (ValueError)         a video cannot be decoded
    ├── RecipeError      (ValueError)         a recipe or a TAO spec has unknown or wrong keys
    ├── TrainingError    (RuntimeError)       training cannot continue
    ├── DatasetError     (ValueError)         a dataset is incomplete or malformed
    ├── DeviceError      (RuntimeError)       there is no GPU, or not the required one
    └── DependencyError  (ImportError)        an optional package is not installed
"""

from i3dzoo.text import message


class I3DZooError(Exception):
    """The base class of all errors of i3dzoo; its text is cut and has no control characters.

    Examples:
        >>> import i3dzoo
        >>> try:
        ...     i3dzoo.open_checkpoint("missing.pt")
        ... except i3dzoo.I3DZooError as error:
        ...     print(error)
        missing.pt: there is no such file
    """

    def __str__(self) -> str:
        # messages quote names from files and servers
        return message(super().__str__())


class MissingFileError(I3DZooError, FileNotFoundError):
    """A file does not exist."""


class OutputError(I3DZooError, OSError):
    """An output exists already, or cannot be written."""


class FormatError(I3DZooError, ValueError):
    """A file is truncated, corrupt or of an unknown format."""


class ChecksumError(FormatError):
    """Bytes or tensors differ from the recorded ones."""


class UnsafeFileError(FormatError):
    """A file tries to run code, to read other files, or to use an absurd amount of memory."""


class MappingError(I3DZooError, ValueError):
    """Tensors match no rule or several, or expected ones are missing."""


class ShapeError(MappingError):
    """A tensor or a clip has the wrong shape."""


class InputTypeError(I3DZooError, TypeError):
    """Frames or a clip have the wrong type, or numbers of the wrong type."""


class MetadataError(I3DZooError, ValueError):
    """The metadata of a checkpoint is missing, malformed, or contradicts its tensors."""


class OptionError(I3DZooError, ValueError):
    """Options contradict each other, or do not apply."""


class ConverterError(I3DZooError, ValueError):
    """A converter table has unknown keys, or a rule that cannot be inverted."""


class ManifestError(I3DZooError, ValueError):
    """A manifest has unknown, missing or malformed keys."""


class UnknownNameError(I3DZooError, LookupError):
    """No model, layout, label set or endpoint has this name."""


class FetchError(I3DZooError, ConnectionError):
    """No source could deliver a file."""


class OfflineError(FetchError):
    """The network is needed, but not allowed."""


class UnreachableError(FetchError):
    """A host cannot be reached: its name is unknown, it does not answer, or there is no network."""


class PushError(I3DZooError, ConnectionError):
    """The Hub refuses a push."""


class VideoError(I3DZooError, ValueError):
    """A video cannot be decoded, or has too few frames."""


class RecipeError(I3DZooError, ValueError):
    """A recipe or a TAO spec has an unknown key, or a value of the wrong type."""


class TrainingError(I3DZooError, RuntimeError):
    """Training cannot continue: the loss is not finite, or memory is not sufficient."""


class DatasetError(I3DZooError, ValueError):
    """A dataset, its split lists or its index is incomplete or malformed."""


class DeviceError(I3DZooError, RuntimeError):
    """There is no GPU, it is not the required one, or it failed."""


class DependencyError(I3DZooError, ImportError):
    """An optional package is not installed; the message names the extra that provides it."""
