"""Calibration for int8: what real clips make of every unit's input, kept beside the export.

A unit's input is rounded to 255 levels between plus and minus the largest magnitude that it
reaches, averaged over the clips. Rounding moves the mean of a unit's outputs, since weights and
activations crowd near zero; the bias takes that back (arXiv:1906.04721, section 4.2).
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from i3dzoo._files import atomic_write
from i3dzoo.architecture import UNITS
from i3dzoo.arrays import Array
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.checksums import sha256
from i3dzoo.errors import FormatError, MetadataError, MissingFileError, VideoError
from i3dzoo.export.describe import digest
from i3dzoo.export.network import fold
from i3dzoo.export.rounding import LEVELS, Rounding, filter_scales

if TYPE_CHECKING:
    import torch

    from i3dzoo.video import Channels

__all__ = ["Calibration", "calibrate", "calibrated", "read_calibration", "videos_in"]

_VERSION: Final = 2


@dataclass(frozen=True, eq=False)
class Calibration:
    """How the units of one checkpoint are rounded.

    Attributes:
        weights: CRC32C of the checkpoint's tensors.
        input: Of the checkpoint, which the clips were made for.
        clips: SHA-256 of each video that was shown, in order.
        units: By name.
    """

    weights: str
    input: str
    clips: tuple[str, ...]
    units: dict[str, Rounding]


def calibrated(
    checkpoint: Checkpoint,
    shown: Sequence[Path],
    kept: Path,
    say: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Return the calibration that is kept in a file if it fits, else make and keep it.

    Args:
        checkpoint: What shall be rounded.
        shown: Videos and folders of videos; none takes what is kept.
        kept: The file.
        say: Told of progress.

    Raises:
        MissingFileError: A video that is named is not there.
        MetadataError: No videos are named, and nothing that fits is kept.
        VideoError: A video cannot be decoded.
    """
    videos = list(videos_in(shown, checkpoint.metadata.input.channels, say))
    if shown and not videos:
        raise MetadataError(f"{', '.join(map(str, shown))}: holds no video to calibrate by")
    clips = _identities(videos)
    if kept.exists() and not (videos and _is_old(kept)):
        found = read_calibration(kept)
        same = (found.weights, found.input) == (digest(checkpoint), str(checkpoint.metadata.input))
        if same and clips in ((), found.clips):
            say(f"calibration: that of {kept}, {len(found.clips)} clips")
            return found
        if not videos:
            raise MetadataError(
                f"{kept}: is of other weights, or of clips other than "
                f"{checkpoint.metadata.input}; show videos with --calibrate"
            )
    if not videos:
        raise MetadataError(
            "int8 rounds by what real clips make of the network; show some with --calibrate VIDEO, "
            "or a folder of them"
        )
    made = calibrate(checkpoint, videos, say)
    with atomic_write(kept) as file:
        file.write(_to_json(made))
    return made


def calibrate(
    checkpoint: Checkpoint, videos: Sequence[Path], say: Callable[[str], None] = lambda _: None
) -> Calibration:
    """Run the middle clips of videos through the network, twice, and return how to round it.

    Args:
        checkpoint: What shall be rounded.
        videos: Of its stream.
        say: Told of progress.

    Raises:
        VideoError: A video cannot be decoded.
    """
    largest: dict[str, list[float]] = {}
    means: dict[str, list[tuple[Array, Array]]] = {}

    def measure(unit: str, x: "torch.Tensor") -> None:
        largest.setdefault(unit, []).append(float(x.abs().max()))

    def compare(unit: str, x: "torch.Tensor") -> None:
        scale = reach[unit] / LEVELS
        rounded = (x / scale).round().clamp(-LEVELS, LEVELS) * scale
        pair = (x.mean((0, 2, 3, 4)).numpy(), rounded.mean((0, 2, 3, 4)).numpy())
        means.setdefault(unit, []).append(pair)

    _observe(checkpoint, videos, measure, say)
    # a unit that is given nothing but zeros has no scale of its own
    reach = {unit: float(np.mean(found)) or 1.0 for unit, found in largest.items()}
    _observe(checkpoint, videos, compare, say)
    units = {}
    for unit, pairs in means.items():
        exact, rounded = np.mean(pairs, axis=0, dtype="f8")
        weight, _ = fold(checkpoint.tensors, unit)
        scales = filter_scales(weight).reshape(-1, 1, 1, 1, 1)
        coarse = np.round(weight / scales) * scales
        shift = weight.sum((2, 3, 4)) @ exact - coarse.sum((2, 3, 4)) @ rounded
        units[unit] = Rounding(reach[unit], tuple(float(np.float32(x)) for x in shift))
    spec = str(checkpoint.metadata.input)
    return Calibration(digest(checkpoint), spec, _identities(videos), units)


def read_calibration(path: Path) -> Calibration:
    """Read what an earlier export kept.

    Raises:
        MissingFileError: There is no such file.
        FormatError: It is no calibration, or lacks units.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: there is no such file")
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        if document["format"] != _VERSION:
            raise FormatError(
                f"{path}: is of version {document['format']}; this i3dzoo reads {_VERSION}; "
                "show videos with --calibrate"
            )
        units = {
            name: Rounding(float(unit["largest"]), tuple(map(float, unit["shift"])))
            for name, unit in document["units"].items()
        }
        clips = tuple(map(str, document["clips"]))
        found = Calibration(str(document["weights_crc32c"]), str(document["input"]), clips, units)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path}: is no calibration for int8 ({error}); remove it") from error
    shapes = {unit.name: unit.out_channels for unit in UNITS}
    if {name: len(unit.shift) for name, unit in units.items()} != shapes:
        raise FormatError(f"{path}: is not of all {len(UNITS)} units of I3D; remove it")
    return found


def _is_old(path: Path) -> bool:
    """Whether a calibration is of a version that this i3dzoo does not read."""
    try:
        return bool(json.loads(path.read_bytes())["format"] != _VERSION)
    except (ValueError, KeyError, TypeError):
        return False


def _to_json(made: Calibration) -> bytes:
    document = {
        "format": _VERSION,
        "weights_crc32c": made.weights,
        "input": made.input,
        "clips": made.clips,
        "units": {name: dataclasses.asdict(unit) for name, unit in made.units.items()},
    }
    return json.dumps(document, indent=1).encode()


def _observe(
    checkpoint: Checkpoint,
    videos: Sequence[Path],
    see: "Callable[[str, torch.Tensor], None]",
    say: Callable[[str], None],
) -> None:
    """Show what every unit is given for every video."""
    import torch

    from i3dzoo.export.prove import middle_clip
    from i3dzoo.loading import build
    from i3dzoo.model import ConvUnit

    network = build(checkpoint).float()
    for name, module in network.named_modules():
        if isinstance(module, ConvUnit):
            module.register_forward_pre_hook(lambda _, given, name=name: see(name, given[0]))
    for number, video in enumerate(videos, 1):
        with torch.inference_mode():
            network(middle_clip(video, checkpoint.metadata.input)[None])
        say(f"calibration: clip {number} of {len(videos)}")


def videos_in(
    shown: Iterable[Path], channels: "Channels" = "rgb", say: Callable[[str], None] = lambda _: None
) -> Iterator[Path]:
    """Yield the videos, and those in folders by name; a folder of images is a video itself.

    Args:
        shown: Videos and folders of videos.
        channels: Of the videos.
        say: Told of what lies in the folders and is no video, which is left out.

    Raises:
        MissingFileError: There is nothing at a path.
    """
    from i3dzoo.video import probe
    from i3dzoo.video._frames import is_frames

    for path in shown:
        if not path.exists():
            raise MissingFileError(f"{path}: there is no such video or folder; see --calibrate")
        if not path.is_dir() or is_frames(path):
            yield path
            continue
        for each in sorted(each for each in path.iterdir() if not each.name.startswith(".")):
            try:
                probe(each, channels)
            except VideoError as error:
                say(f"calibration: left out: {error}")
            else:
                yield each


def _identities(videos: Iterable[Path]) -> tuple[str, ...]:
    return tuple(sorted(map(_identity, videos)))


def _identity(video: Path) -> str:
    """Return a digest of a video; of a folder of frames, of its names and sizes."""
    from i3dzoo.video._frames import frames_digest

    return frames_digest(video) if video.is_dir() else sha256(video)
