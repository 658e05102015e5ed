"""Find the file of a model argument: a zoo name, a file in any layout, or a Hub repository.

`FILE#KEY` is one network of a file with several; it is passed on as it is until the file is read.
"""

import hashlib
import logging
from pathlib import Path
from typing import Final

from i3dzoo import zoo
from i3dzoo.checkpoints.checkpoint import Checkpoint, network_keys, read_checkpoint
from i3dzoo.checkpoints.metadata import Stream
from i3dzoo.checkpoints.networks import split_key, with_key
from i3dzoo.digests import sha256
from i3dzoo.errors import MissingFileError, OptionError
from i3dzoo.formats import sharded_safetensors
from i3dzoo.formats.tensorflow_bundle import index_path
from i3dzoo.progress import SILENT, Progress
from i3dzoo.zoo.identify import recognise

_LOG: Final = logging.getLogger("i3dzoo")
_RUN: Final = "run.json"  # in the folder of a run


def is_local(model: str | Path) -> bool:
    """Whether a model argument is a file, a folder or the prefix of a TensorFlow checkpoint."""
    path = Path(split_key(model)[0])
    try:
        return path.exists() or path.with_name(f"{path.name}.index").exists()
    except OSError:  # the name is too long, or there is no permission to look
        return False


def find(
    model: str | Path,
    offline: bool = False,
    verify: bool = False,
    progress: Progress = SILENT,
) -> Path:
    """Return the file of a model argument, and download it if it is not cached.

    It is a zoo name, a file, a folder that `save_pretrained` or `i3dzoo finetune` wrote, or a
    repository on the Hub. A zoo name is taken before a file of this name, with a remark, and a file
    before a repository.
    `#KEY` after it stays after the file.
    With `verify` a corrupt cached file of a repository is an error instead of downloaded again.
    """
    name, key = split_key(model)
    if not isinstance(model, Path):  # a path is meant as one, such as that of ./NAME
        remark_namesake(name)
    elif name in zoo.names() and is_local(model):
        return Path(with_key(_find(str(model.absolute()), offline, verify, progress), key))
    return Path(with_key(_find(name, offline, verify, progress), key))


def remark_namesake(name: str) -> None:
    """Say that the zoo model was taken if a file or a folder has its name too."""
    if name in zoo.names() and is_local(name):
        kind = "folder" if Path(name).is_dir() else "file"
        _LOG.warning("%s: the zoo model was taken; ./%s is the %s of this name", name, name, kind)


def _find(name: str, offline: bool, verify: bool, progress: Progress) -> Path:
    if name in zoo.names():
        from i3dzoo.fetch.pull import pull  # imports requests

        return pull(name, offline=offline, progress=progress)
    path = Path(name)
    if is_local(path) and not path.is_dir():
        return path
    from i3dzoo import hub  # takes 12 ms, which files do not need

    if is_local(path):
        if not (path / hub.WEIGHTS).is_file():
            return _of_run(path) or sharded_safetensors.index_path(path) or path
        hub.verify_folder(path)
        return path / hub.WEIGHTS
    if hub.is_address(name) and not (path.parent.is_dir() and len(path.parts) > 1):
        pulled = hub.pull(hub.parse(name), offline=offline, verify=verify, progress=progress)
        return pulled.weights
    raise zoo.unknown_name(name, "is neither a file nor a zoo model")


def _of_run(folder: Path) -> Path | None:
    """Return the checkpoint of a run of `i3dzoo finetune`: the best, or the last if there is none.

    None if the folder is not that of a run.

    Raises:
        MissingFileError: The run has no checkpoint yet.
        OptionError: The run has a network for each stream.
    """
    if not (folder / _RUN).is_file():
        return None
    for name in ("best", "last"):
        both = sorted(folder.glob(f"{name}_*.safetensors"))
        if both:
            options = " or ".join(map(str, both))
            raise OptionError(f"{folder}: is a run with a network for each stream; give {options}")
        path = folder / f"{name}.safetensors"
        if path.is_file():
            _LOG.warning("%s: uses %s of this run", folder, path.name)
            return path
    raise MissingFileError(
        f"{folder}: is a run without best.safetensors and last.safetensors; continue it with "
        "i3dzoo finetune --resume"
    )


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of a TensorFlow checkpoint's index, which has checksums.

    Of a sharded file it is that of the digests of all files. The networks of one file have
    different digests.
    """
    file, key = split_key(path)
    if index := sharded_safetensors.index_path(Path(file)):
        digests = [sha256(part) for part in sharded_safetensors.files(index)]
        own = hashlib.sha256("".join(digests).encode()).hexdigest()
    else:
        own = sha256(index_path(Path(file)) or Path(file))
    return own if key is None else hashlib.sha256(f"{own}#{key}".encode()).hexdigest()


def open_checkpoint(
    path: str | Path,
    layout: str | None = None,
    converter: str | Path | None = None,
    stream: Stream | None = None,
    altered: bool = False,
    ignore: tuple[str, ...] = (),
    key: str | None = None,
    round_float64: bool = False,
) -> Checkpoint:
    """Read a file of any layout, and recognise published checkpoints.

    Examples:
        >>> import i3dzoo
        >>> i3dzoo.open_checkpoint("mine.safetensors").metadata.num_classes
        2

    Args:
        path: The file; of a TensorFlow checkpoint, its index, data file, prefix or folder.
            `FILE#KEY` is FILE with this `key`.
        layout: Name of the layout; None detects it from the names of the tensors.
        converter: A converter table of the user's own, instead of `layout`.
        stream: The network to read of a file that holds two, as TAO's joint checkpoints do.
        altered: Accept a file that differs from a published checkpoint in one tensor, which is
            otherwise taken for damage.
        ignore: Names of tensors to leave out that the layout does not know, with `*` for any text.
        key: The network to read of a file that holds several: the key of its state dict, the prefix
            of its names, or a part of these that no other network has.
        round_float64: Round float64 to float32, instead of refusing it.

    Raises:
        I3DZooError: See `read_checkpoint` and `recognise`.
    """
    checkpoint = read_checkpoint(path, layout, converter, stream, ignore, key, round_float64)
    return recognise(checkpoint, altered)


def open_networks(path: str | Path) -> tuple[Checkpoint, ...]:
    """Read all networks of a file, or the one of `FILE#KEY`."""
    keys = network_keys(path) if split_key(path)[1] is None else ()
    if len(keys) < 2:
        return (open_checkpoint(path),)
    return tuple(open_checkpoint(path, key=key) for key in keys)
