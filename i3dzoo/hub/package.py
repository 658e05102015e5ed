"""What goes into a repository: weights that describe themselves, and the same in others' terms."""

import hashlib
import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from i3dzoo._files import atomic_write
from i3dzoo.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.checksums import git_blob, sha256
from i3dzoo.errors import ChecksumError, FormatError, MetadataError, MissingFileError
from i3dzoo.fingerprint import match, tensor_crcs, without_checksums
from i3dzoo.hub.results import Result, read_results
from i3dzoo.metadata import Input, Metadata

__all__ = [
    "ONNX",
    "PICTURES",
    "SUMS",
    "WEIGHTS",
    "About",
    "Package",
    "file_digest",
    "prepare",
    "read_sums",
    "verified",
]

WEIGHTS: Final = "model.safetensors"
SUMS: Final = "SHA256SUMS"
ONNX: Final = "model.onnx"
PICTURES: Final = ("training_curves.png", "confusion_matrix.png")

# beside a checkpoint, NAME or CHECKPOINT.NAME; the first that is there is taken
_BESIDE: Final = {
    "training_curves.png": ("training_curves.png", "curves.png"),
    "confusion_matrix.png": ("confusion_matrix.png", "confusion.png"),
}
_PNG: Final = b"\x89PNG\r\n\x1a\n"
# the Hub's own pages change this one
_UNSUMMED: Final = frozenset({"README.md"})
_BILINEAR: Final = 2  # as Pillow and the preprocessors of transformers number it


@dataclass(frozen=True)
class About:
    """What a repository says that its checkpoint does not.

    Attributes:
        repository: `USER/NAME`; None writes usage for a folder.
        licence: SPDX identifier; None takes that of the published checkpoint it is or was.
        results: A JSON file of results; see `i3dzoo.hub.results`.
        onnx: The same network as ONNX, as `i3dzoo export` makes it of these weights.
        base_model: A Hub repository that it was trained from.
        datasets: That it was trained on; empty takes what its labels tell.
    """

    repository: str | None = None
    licence: str | None = None
    results: Path | None = None
    onnx: Path | None = None
    base_model: str | None = None
    datasets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Package:
    """A folder that is ready to be pushed.

    Attributes:
        folder: Where the files are.
        files: Their names, sizes in bytes and sha256.
        card: The text of README.md.
        licence: SPDX identifier.
        metadata: Of the weights.
    """

    folder: Path
    files: tuple[tuple[str, int, str], ...]
    card: str
    licence: str
    metadata: Metadata


def prepare(
    checkpoint: Checkpoint,
    folder: Path,
    about: About | None = None,
    beside: Path | None = None,
    force: bool = False,
) -> Package:
    """Write all files of a repository into a folder.

    Args:
        checkpoint: The weights; labels are needed.
        folder: It exists.
        about: What the checkpoint does not say.
        beside: The file that the checkpoint came from: pictures that lie beside it come along.
        force: Replace weights that are there.

    Raises:
        MetadataError: Licence or labels are missing, or the results are malformed; or it says
            that it is a published checkpoint, and its classes have other names.
        ChecksumError: It says that it is a published checkpoint, and its tensors are not; or the
            ONNX file is of other weights.
        MissingFileError: The ONNX file is not there.
        FormatError: A picture is no PNG, or the ONNX file no ONNX.
        OutputError: The folder cannot be written.
    """
    about = about or About()
    metadata = checkpoint.metadata
    if metadata.labels is None:
        raise MetadataError(
            f"{beside or 'the model'}: its {metadata.num_classes} classes have no names, and "
            "nothing is pushed without them; pass --labels, a label set or a file with one a line"
        )
    _check_claim(checkpoint, beside)
    base = _base(metadata)
    licence = _licence(about, base, beside)
    results = _results(about, metadata)
    pictures = _pictures(beside)
    if about.onnx:
        _check_onnx(about.onnx, checkpoint)
    write_checkpoint(folder / WEIGHTS, checkpoint, force=force)
    for name, source in _extras(about, pictures).items():
        shutil.copyfile(source, folder / name)
    texts = {
        "config.json": _json(config(metadata)),
        "preprocessor_config.json": _json(preprocessor(metadata.input)),
        "labels.txt": "".join(f"{label}\n" for label in metadata.labels),
    }
    for name, text in texts.items():
        _write(folder / name, text)
    from i3dzoo.hub.card import write_card

    extras = tuple(_extras(about, pictures))
    card = write_card(metadata, about, licence, base, results, extras)
    _write(folder / "README.md", card)
    files = _summed(folder, sorted([WEIGHTS, *extras, *texts, "README.md"]))
    return Package(folder, files, card, licence, metadata)


def _summed(folder: Path, names: list[str]) -> tuple[tuple[str, int, str], ...]:
    """Write SHA256SUMS of files, and return name, size and digest of each and of itself."""
    digests = {name: sha256(folder / name) for name in names}
    sums = "".join(f"{digests[name]}  {name}\n" for name in names if name not in _UNSUMMED)
    _write(folder / SUMS, sums)
    digests[SUMS] = hashlib.sha256(sums.encode()).hexdigest()
    return tuple((n, (folder / n).stat().st_size, digests[n]) for n in sorted(digests))


def config(metadata: Metadata) -> dict[str, Any]:
    """Return config.json: keys of transformers, those of the constructor, and the description."""
    labels = metadata.labels or ()
    description = json.loads(replace(metadata, labels=None, num_classes=0).to_json())
    del description["labels"], description["num_classes"]  # id2label and num_classes hold them
    return {
        "architectures": ["InceptionI3d"],
        "model_type": metadata.architecture,
        "num_classes": metadata.num_classes,
        "in_channels": len(metadata.input.mean),
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
        "image_size": metadata.input.crop,
        "num_frames": metadata.input.frames,
        "i3dzoo": description,
    }


def preprocessor(spec: Input) -> dict[str, Any]:
    """Return preprocessor_config.json, by the convention of transformers.

    An RGB one is what `VideoMAEImageProcessor` takes; time, and flow, have no keys there and get
    some of their own.
    """
    document: dict[str, Any] = {
        "do_resize": spec.resize is not None,
        "size": {"shortest_edge": spec.resize or spec.crop},
        "resample": _BILINEAR,
        "do_center_crop": True,
        "crop_size": {"height": spec.crop, "width": spec.crop},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
        "num_frames": spec.frames,
        "frame_rate": spec.fps,
        "channels": spec.channels,
    }
    if spec.channels == "rgb":
        return {"image_processor_type": "VideoMAEImageProcessor", **document}
    return {**document, "flow_bound": spec.flow_bound}


def file_digest(path: Path, kind: str) -> str:
    """Return `sha256:<hex>` or `git-blob:<hex>` of a file, as `kind` says."""
    return f"{kind}:{(sha256 if kind == 'sha256' else git_blob)(path)}"


def read_sums(path: Path) -> dict[str, str]:
    """Read a SHA256SUMS file: digest by name.

    Raises:
        FormatError: A line is no digest and name.
    """
    sums = {}
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read as a list of digests: {error}") from error
    for number, line in enumerate(lines, 1):
        found = re.fullmatch(r"([0-9a-f]{64}) [ *](\S.*)", line)
        if not found:
            raise FormatError(
                f"{path}: line {number} is {line[:80]!r}; expected a sha256, two spaces and a name"
            )
        sums[found.group(2)] = found.group(1)
    return sums


def verified(folder: Path) -> Path:
    """Return the weights of a folder that was saved, compared with its own SHA256SUMS.

    Raises:
        FormatError: SHA256SUMS is malformed, or names a file that is not in the folder itself.
        MissingFileError: A file that it lists is missing.
        ChecksumError: A file has another digest.
    """
    for name, expected in read_sums(folder / SUMS).items() if (folder / SUMS).exists() else ():
        if "/" in name:
            raise FormatError(f"{folder / SUMS}: lists {name}, which is not in the folder itself")
        if not (folder / name).is_file():
            raise MissingFileError(f"{folder / name}: is missing, and {SUMS} lists it; save again")
        found = file_digest(folder / name, "sha256")
        if found != f"sha256:{expected}":
            raise ChecksumError(
                f"{folder / name}: has {found.replace(':', ' ')}, expected {expected} as {SUMS} "
                "says; it was altered, save or fetch it again"
            )
    return folder / WEIGHTS


def _check_claim(checkpoint: Checkpoint, where: Path | None) -> None:
    """Refuse weights that say they are published ones and are not: the card would repeat it."""
    from i3dzoo import zoo

    name = checkpoint.metadata.zoo
    if name is None:
        return
    manifest = zoo.manifest(name)
    if checkpoint.metadata.labels != zoo.labels(manifest.labels):
        raise MetadataError(
            f"{where or 'the model'}: says that it is {name}, but its classes have other names; "
            "rename them with i3dzoo convert --head keep --labels, which says so in its history"
        )
    if without_checksums(name):
        return
    found = match(name, manifest.crc32c, tensor_crcs(checkpoint.tensors))
    if not found.exact:
        raise ChecksumError(
            f"{where or 'the model'}: says that it is {name}, but its tensors are not: {found}; "
            "convert it with a head of its own, or push the published weights"
        )


def _check_onnx(path: Path, checkpoint: Checkpoint) -> None:
    """Refuse an ONNX file that does not say that it was exported from these weights."""
    from i3dzoo.export.describe import EXPORT, digest
    from i3dzoo.formats.onnx_file import read_properties

    texts = read_properties(path)
    try:
        found = json.loads(texts[EXPORT])["weights_crc32c"][checkpoint.metadata.stream]
    except (KeyError, TypeError, ValueError) as error:
        raise ChecksumError(
            f"{path}: does not say which weights it is of, and nothing is pushed that may be of "
            "others; make it with i3dzoo export --to onnx"
        ) from error
    if found != (expected := digest(checkpoint)):
        raise ChecksumError(
            f"{path}: was exported from weights with checksum {found}, and these have {expected}; "
            "export it again"
        )


def _base(metadata: Metadata) -> str | None:
    """Return the published checkpoint that these weights are or began as."""
    from i3dzoo import zoo

    name = metadata.zoo or metadata.base
    return name if name in zoo.names() else None


def _licence(about: About, base: str | None, where: Path | None) -> str:
    if about.licence:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", about.licence):
            raise MetadataError(
                f"the licence {about.licence!r} is no SPDX identifier; expected one such as "
                "Apache-2.0, or LicenseRef-NAME for one of your own"
            )
        return about.licence
    if base is None:
        raise MetadataError(
            f"{where or 'the model'}: its licence is not known, since it does not say that it came "
            "from a published checkpoint, and nothing is pushed without; pass --license, such as "
            "Apache-2.0"
        )
    from i3dzoo import zoo

    return zoo.manifest(base).licence


def _results(about: About, metadata: Metadata) -> tuple[Result, ...]:
    if about.results:
        from i3dzoo.hub.card import datasets_of

        known = about.datasets or datasets_of(metadata)
        return read_results(about.results, known[0] if known else None)
    if metadata.zoo is None:
        return ()
    from i3dzoo import zoo

    return tuple(
        Result(each.dataset.lower(), each.split, each.top1, each.top5, source=each.source)
        for each in zoo.manifest(metadata.zoo).metrics
    )


def _pictures(beside: Path | None) -> dict[str, Path]:
    """Find pictures beside a checkpoint.

    Raises:
        FormatError: One is no PNG.
    """
    if beside is None:
        return {}
    found: dict[str, Path] = {}
    for name, spellings in _BESIDE.items():
        candidates = [f"{beside.stem}.{spelling}" for spelling in spellings]
        for candidate in (*candidates, *spellings):
            path = beside.with_name(candidate)
            if name not in found and path.is_file():
                found[name] = path
    for path in found.values():
        with path.open("rb") as file:
            if file.read(8) != _PNG:
                raise FormatError(f"{path}: is no PNG, so the Hub would not show it; draw it again")
    return found


def _extras(about: About, pictures: dict[str, Path]) -> dict[str, Path]:
    extras = dict(pictures)
    if about.onnx:
        extras[ONNX] = about.onnx
    return extras


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())
