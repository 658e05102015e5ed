"""From the description of a video and of a network to the frames of each row."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from i3dzoo.checkpoints.metadata import Input, Metadata, Stream
from i3dzoo.checkpoints.presets import preset as network_preset
from i3dzoo.errors import OptionError, VideoError
from i3dzoo.features.readout import readout_channels
from i3dzoo.features.record import quick_digest
from i3dzoo.features.settings import FeatureSettings
from i3dzoo.features.windows import plan_clips
from i3dzoo.files.output_names import name_outputs
from i3dzoo.network.architecture import Variant
from i3dzoo.video import probe, sampling
from i3dzoo.video.flow import BOUND, FlowMethod
from i3dzoo.video.flow_video import check_flow, computed_flow, flow_name
from i3dzoo.video.info import Channels, VideoInfo
from i3dzoo.video.plan import CROPS, Plan, Resize
from i3dzoo.video.sampling import Clip, Samples

_ARRAYS: Final = frozenset({".npy", ".npz"})


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamPlan(Plan):
    """A plan with what describes its rows.

    Attributes:
        samples: The video at the rate of the network; clips count in it.
        notes: How the video was sampled, and what is wrong with it, one sentence each.
        flow: How optical flow was made; None for RGB.
        channels: Channels of the features.
    """

    samples: Samples
    channels: int
    notes: tuple[str, ...] = ()
    flow: str | None = None


def network_of(metadata: Metadata, settings: FeatureSettings) -> tuple[Input, Variant]:
    """Return the input and the variant of a network, as the settings change them.

    Raises:
        UnknownNameError: There is no preset of this name.
        OptionError: The preset has no network of this stream.
    """
    spec, variant = metadata.input, metadata.variant
    if settings.network is None:
        return spec, variant
    other = network_preset(settings.network)
    if metadata.stream not in other.inputs:
        raise OptionError(
            f"the preset {settings.network} has no network for {metadata.stream}; its streams are "
            f"{', '.join(other.inputs)}"
        )
    own = other.inputs[metadata.stream]
    spec = spec.replace(channels=own.channels, mean=own.mean, std=own.std)
    return spec, other.variant


class Planner:
    """Plans the rows of videos for the network of one stream.

    Args:
        metadata: Description of the network.
        settings: How features are extracted; `streams` says whether there is another stream.
        device: Where optical flow is computed, if PyTorch computes it.
        flow_folder: Where optical flow is read from, or kept.
    """

    def __init__(
        self,
        metadata: Metadata,
        settings: FeatureSettings,
        device: torch.device | str = "cpu",
        flow_folder: Path | None = None,
    ) -> None:
        self.stream: Stream = metadata.stream
        self.settings, self.device, self.flow_folder = settings, torch.device(device), flow_folder
        self.spec, self.variant = network_of(metadata, settings)
        self.changes = _changes(metadata, self.spec, self.variant, settings.network)
        self.resize = settings.resize_rule(self.spec)
        self.window = max(self.spec.frames, self.variant.min_frames)
        if isinstance(settings.window, int) and settings.window < self.variant.min_frames:
            raise OptionError(
                f"window: expected {self.variant.min_frames} frames or more, which the network "
                f"needs, found {settings.window}"
            )
        self.out_channels = readout_channels(settings.endpoint, metadata.num_classes)

    @property
    def fps(self) -> float | None:
        """Frames a second; None is the video's own rate."""
        wanted = self.settings.fps
        return self.spec.fps if wanted is None else None if wanted == "native" else wanted

    def describe(self) -> dict[str, Any]:
        """Return what the JSON of features says about the network."""
        return {
            "channels": self.spec.channels,
            "mean": list(self.spec.mean),
            "std": list(self.spec.std),
            "crop": self.spec.crop,
            "resize": str(self.resize),
            "fps": self.fps,
            "window": self.settings.window or self.window,
            "epsilon": self.variant.epsilon,
            "padding": self.variant.padding,
            "pooling": self.variant.pooling,
        }

    def channels(self, path: str | Path) -> Channels:
        """Return what to read of a video: `xy` only for optical flow that has no RGB beside it."""
        if self.stream == "rgb" or self.settings.streams == "both":
            return "rgb"
        if self.settings.flow == "frames":
            return "rgb" if self.flow_folder else "xy"
        return "xy" if self.settings.flow is None and _has_flow(Path(path)) else "rgb"

    def __call__(self, info: VideoInfo) -> StreamPlan:
        """Return the plan of a video.

        Args:
            info: The RGB video, or its optical flow, as `channels` says.

        Raises:
            VideoError: There is no optical flow, or not as much as RGB.
            OptionError: The settings do not apply to the network.
        """
        samples = sampling.resample(info, self.fps)
        if self.stream == "rgb" and self.settings.streams != "both":
            return self._plan(info, samples, samples, self.resize)
        if info.channels == "xy":
            return self._plan(info, samples, samples, self.resize, "as it is stored")
        kept = self._kept_flow(info)
        if kept is not None:
            flow_samples = self._common(samples, kept)
            samples = _first(samples, len(flow_samples))
            if self.stream == "rgb":
                return self._plan(info, samples, samples, self.resize)
            return self._plan(kept, flow_samples, samples, self.resize, "as it is stored")
        if self.stream == "rgb":
            return self._plan(info, samples, samples, self.resize)
        method = self._method
        bound = self.spec.flow_bound or BOUND
        keep = None
        if self.flow_folder is not None:
            keep = self.flow_folder / f"{name_outputs([str(info.path)])[0]}.npy"
        digest = "" if keep is None else quick_digest(info.path)
        flow = computed_flow(samples, self.resize, method, str(self.device), bound, keep, digest)
        of_flow = dataclasses.replace(
            samples, info=flow, indices=np.arange(flow.frames, dtype=np.int64)
        )
        return self._plan(flow, of_flow, samples, Resize(), flow_name(method))

    @property
    def _method(self) -> FlowMethod:
        method = self.settings.flow or "tvl1"
        if method == "frames":
            raise OptionError("flow frames needs stored optical flow")
        return "torch" if method == "tvl1" and self.device.type == "cuda" else method

    def _kept_flow(self, info: VideoInfo) -> VideoInfo | None:
        """Return the optical flow that is stored beside an RGB video, if it is to be used."""
        method = self.settings.flow
        if method == "frames" and self.flow_folder is not None:
            (name,) = name_outputs([str(info.path)])
            paths = [self.flow_folder / f"{name}.npy", self.flow_folder / name]
            for path in paths:
                if path.exists():
                    check_flow(path, quick_digest(info.path))
                    return probe(path, "xy")
            raise VideoError(f"{info.path}: has no optical flow; expected {paths[0]} or {paths[1]}")
        if method == "frames" or (method is None and _has_flow(info.path)):
            return probe(info.path, "xy")
        return None

    def _common(self, samples: Samples, flow: VideoInfo) -> Samples:
        """Return stored flow at the rate of the RGB samples, and as many frames as both have."""
        if abs(flow.frames - samples.info.frames) <= 1:
            indices = samples.indices[samples.indices < flow.frames]
        elif abs(flow.frames - len(samples)) <= 1:  # it was computed at the rate of the network
            indices = np.arange(min(len(samples), flow.frames), dtype=np.int64)
        else:
            raise VideoError(
                f"{flow.path}: holds flow of {flow.frames} frames; expected about "
                f"{samples.info.frames}, as many as {samples.info.path} has"
            )
        return dataclasses.replace(_first(samples, len(indices)), info=flow, indices=indices)

    def _plan(
        self,
        info: VideoInfo,
        of_stream: Samples,
        samples: Samples,
        resize: Resize,
        flow: str | None = None,
    ) -> StreamPlan:
        clips = self._clips(of_stream)
        return StreamPlan(
            info=info,
            clips=tuple(clips),
            spec=self.spec,
            resize=resize,
            crops=CROPS[self.settings.crops],
            negate=self.settings.mirrored_flow == "negate",
            samples=samples,
            channels=self.out_channels,
            notes=(*info.notes, samples.note, *self._notes(samples, clips, flow)),
            flow=flow,
        )

    def _clips(self, samples: Samples) -> list[Clip]:
        settings = self.settings
        frames = settings.window or self.window
        spread = self.spec.sampling == "interval" and settings.window is None
        if frames != "all" and (settings.clips is not None or spread):
            if len(samples) < frames and settings.pad != "loop" and not spread:
                return plan_clips(samples, settings.replace(clips=None), *self._limits)
            return sampling.clips(samples, frames, settings.clips or 1, self.spec.sampling)
        return plan_clips(samples, settings, *self._limits)

    @property
    def _limits(self) -> tuple[int, int, int]:
        return self.window, self.variant.min_frames, self.spec.crop

    def _notes(self, samples: Samples, clips: list[Clip], flow: str | None) -> list[str]:
        notes = [] if flow is None else [f"optical flow: {flow}"]
        if not clips:
            notes.append(f"{len(samples)} frames are fewer than a window, and pad is none: no rows")
        elif clips[0].loops > 1 and self.settings.pad == "loop":
            notes.append(sampling.looped_note(samples, clips[0]))
        else:
            number = "1 window" if len(clips) == 1 else f"{len(clips)} windows"
            lengths = {len(clip.indices) for clip in clips}
            frames = f"{min(lengths)} to {max(lengths)}" if len(lengths) > 1 else str(max(lengths))
            notes.append(f"{number} of {frames} frames")
        return notes


def _changes(
    metadata: Metadata, spec: Input, variant: Variant, network: str | None
) -> tuple[str, ...]:
    """Say how the settings change the network from what its checkpoint says."""
    changes = []
    if not spec.same_pixels(metadata.input):
        changes.append(f"{network}: the input is {spec}; the checkpoint says {metadata.input}")
    if variant != metadata.variant:
        changes.append(f"{network}: the network has {variant}; the checkpoint's {metadata.variant}")
    return tuple(changes)


def _has_flow(path: Path) -> bool:
    """Whether a path holds optical flow: a folder with u/ and v/, or an array of two channels."""
    if not path.is_dir() and path.suffix.lower() not in _ARRAYS:
        return False
    try:
        probe(path, "xy")
    except VideoError:
        return False
    return True


def _first(samples: Samples, count: int) -> Samples:
    """Return the first samples of a video."""
    if count == len(samples):
        return samples
    times, duration = samples.times, samples.duration
    if times is not None:
        duration = float(times[count])
        times = times[:count]
    return dataclasses.replace(
        samples, indices=samples.indices[:count], times=times, duration=duration
    )
