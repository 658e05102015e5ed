"""Extract features of videos, window by window: pooled features, 1024 numbers, or others."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from i3dzoo.arrays import Array
from i3dzoo.checkpoints.metadata import Metadata, Stream
from i3dzoo.engines.base import Engine, as_engine
from i3dzoo.engines.torch import TorchEngine
from i3dzoo.engines.videos import run_videos
from i3dzoo.errors import FormatError, I3DZooError, MetadataError, OptionError, VideoError
from i3dzoo.features.planner import Planner, StreamPlan
from i3dzoo.features.presets import settings_with
from i3dzoo.features.readout import Readout, stream
from i3dzoo.features.rows import Rows, rows_of
from i3dzoo.features.settings import FeatureSettings
from i3dzoo.network.architecture import Variant
from i3dzoo.pretrained import InceptionI3d
from i3dzoo.progress import SILENT, Progress
from i3dzoo.video import BadVideo, VideoInfo, probe
from i3dzoo.video.pipeline import DecoderName, Planned

Model = Engine | InceptionI3d
Outputs = Sequence[Array]
"""What a network makes of a plan: for each clip, float32 [crops, steps, channels]."""


@dataclass(frozen=True, eq=False)
class Features:
    """The features of a video.

    Attributes:
        path: The video.
        streams: Features of each stream, float32 [rows, crops, channels].
        rows: Which frames each row has seen.
        info: Description of the video.
        frames: Frames at the rate at which the video was sampled.
        fps: This rate; None if the video has none.
        notes: How the video was sampled, and what is wrong with it, one sentence each.
        flow: How optical flow was made; None without the flow stream.
    """

    path: Path
    streams: Mapping[Stream, Array]
    rows: Rows
    info: VideoInfo
    frames: int
    fps: float | None
    notes: tuple[str, ...]
    flow: str | None = None

    @property
    def vectors(self) -> Array:
        """Float32 [rows, channels], or [rows, crops, channels] with several crops.

        RGB comes before flow. Averaged rows are one.
        """
        joined = np.concatenate([self.streams[name] for name in sorted(self.streams)[::-1]], axis=2)
        return joined[:, 0] if joined.shape[1] == 1 else joined

    @property
    def spans(self) -> Array:
        """Start and end of each window in seconds, float64 [rows, 2]; NaN without a frame rate."""
        return self.rows.spans


class Extractor:
    """Extracts the features of videos with one network, or with an RGB and a flow network.

    Args:
        models: Networks from `i3dzoo.load`, in eval mode, or engines from `load_engine`.
        settings: How features are extracted.
        flow_folder: Where optical flow is read from, or kept.

    Raises:
        MetadataError: A model has no metadata, or was exported without features.
        UnknownNameError: A model does not return the endpoint.
        OptionError: The settings do not apply to the models.
    """

    def __init__(
        self,
        models: Model | Sequence[Model],
        settings: FeatureSettings,
        flow_folder: Path | None = None,
    ) -> None:
        given = models if isinstance(models, Sequence) else [models]
        engines = {_metadata(engine).stream: engine for engine in map(as_engine, given)}
        self.settings = with_streams(settings, [*engines], len(given))
        self.readout = Readout(settings.endpoint, settings.steps)
        self.planners: dict[Stream, Planner] = {}
        self.engines: dict[Stream, Engine] = {}
        for name in sorted(engines)[::-1]:  # rgb before flow
            metadata, device = _metadata(engines[name]), engines[name].device
            planner = Planner(metadata, self.settings, device, flow_folder)
            self.planners[name] = planner
            self.engines[name] = with_variant(engines[name], planner.variant)
            self.readout.check(self.engines[name])
            _check_length(self.engines[name], self.settings)

    def plan(self, path: str | Path) -> dict[Stream, StreamPlan]:
        """Return the plan of each stream of a video; see `Planner`."""
        return plan_streams(self.planners, path)

    def extract(
        self,
        videos: Iterable[str | Path],
        *,
        ordered: bool = True,
        batch_size: int | None = None,
        decoder: DecoderName = "auto",
        progress: Progress = SILENT,
    ) -> Iterator[tuple[str, Features | BadVideo]]:
        """Extract the features of videos; a video that fails does not stop the others.

        Args:
            videos: The videos; taken as they are needed.
            ordered: Whether results come in the order of the videos; those of one stream can come
                as they are ready.
            batch_size: Clips that a network runs on at once; None chooses by the device.
            decoder: What decodes video files; see `PipelineOptions`.
            progress: Shows the videos, or the clips if there is one video.

        Yields:
            Each video as it was named, and its features, or why there are none.
        """
        one = len(self.engines) == 1
        taken = (
            [videos] if one else tee(videos) if not isinstance(videos, Sequence) else [videos] * 2
        )
        runs = [
            run_videos(
                engine,
                own,
                self.planners[name],
                forward=partial(_forward, engine, self.readout),
                batch_size=batch_size,
                progress=progress if number == 0 else SILENT,
                channels=self.planners[name].channels,
                ordered=ordered or not one,
                # Optical flow is made of a file that is described completely, and may be computed
                # on the GPU of this process.
                quick=name == "rgb",
                processes=None if name == "rgb" else False,
                decoder=decoder if name == "rgb" else "cpu",
            )
            for number, ((name, engine), own) in enumerate(
                zip(self.engines.items(), taken, strict=True)
            )
        ]
        for results in zip(*runs, strict=True):
            yield self._joined(results)

    def _joined(self, results: Sequence[Planned | BadVideo]) -> tuple[str, Features | BadVideo]:
        """Return the features of a video from what the network of each stream has returned."""
        plans: dict[Stream, StreamPlan] = {}
        outputs: dict[Stream, Outputs] = {}
        for name, result in zip(self.engines, results, strict=True):
            if isinstance(result, BadVideo):
                return result.file, result
            assert isinstance(result.plan, StreamPlan)  # noqa: S101 - it is of a planner
            plans[name], outputs[name] = result.plan, result.outputs
            video = result.video
        try:
            return video, assemble(video, plans, outputs, self.settings)
        except I3DZooError as error:
            return video, BadVideo(video, str(error), error)


def _forward(engine: Engine, readout: Readout, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    return stream(engine, batches, readout)


def extract(
    model: Model | Sequence[Model],
    videos: Sequence[str | Path],
    *,
    preset: str | Path | None = None,
    flow_folder: str | Path | None = None,
    batch_size: int | None = None,
    decoder: DecoderName = "auto",
    progress: Progress = SILENT,
    **settings: Any,
) -> Iterator[Features | BadVideo]:
    """Extract the features of videos; a video that fails does not stop the others.

    Several videos are decoded at once, and their windows share batches.

    Examples:
        >>> import i3dzoo
        >>> (features,) = i3dzoo.extract(i3dzoo.load("mine.safetensors"), ["clip.mp4"])
        >>> features.vectors.shape  # windows, channels
        (2, 1024)

    Args:
        model: A network from `i3dzoo.load`, in eval mode, which runs on its device and in its
            dtype; or an engine from `i3dzoo.engines.base.load_engine`. Two networks, of RGB and of
            flow, give both streams.
        videos: Video files, folders of frames or .npy arrays; see `i3dzoo.video.probe`.
        preset: A name of `i3dzoo.features.feature_preset_names()`, or a YAML file.
        flow_folder: Where optical flow is read from (`flow="frames"`), or kept.
        batch_size: Clips that a network runs on at once; None chooses by the device.
        decoder: What decodes video files: `nvdec` also uses the decoder of an NVIDIA GPU.
        progress: Shows the videos, or the windows if there is one video.
        settings: Fields of `i3dzoo.features.FeatureSettings`, such as `window`, `stride` and
            `endpoint`; they replace those of the preset.

    Yields:
        For each video in order, its features, or the reason why there are none.

    Raises:
        MetadataError: The model has no metadata, or was exported without features.
        UnknownNameError: The model does not return the endpoint, or there is no such preset.
        OptionError: A setting is unknown, or does not apply to the model.
    """
    folder = None if flow_folder is None else Path(flow_folder)
    extractor = Extractor(model, settings_with(preset, settings), folder)
    results = extractor.extract(videos, batch_size=batch_size, decoder=decoder, progress=progress)
    for _, result in results:
        if isinstance(result, BadVideo):
            progress.message(result.reason)
        yield result


def extract_video(
    model: Model | Sequence[Model],
    path: str | Path,
    *,
    preset: str | Path | None = None,
    **settings: Any,
) -> Features:
    """Extract the features of one video; see `extract`.

    Raises:
        VideoError: The video cannot be decoded, or is not of the model's stream.
        FormatError: The features are not finite, so the weights are damaged.
    """
    ((_, result),) = Extractor(model, settings_with(preset, settings)).extract([path])
    if isinstance(result, BadVideo):
        raise result.error or VideoError(result.reason)
    return result


def plan_streams(planners: Mapping[Stream, Planner], path: str | Path) -> dict[Stream, StreamPlan]:
    """Return the plan of each stream of a video, which is probed once."""
    plans: dict[Stream, StreamPlan] = {}
    info: VideoInfo | None = None
    for name, planner in planners.items():
        if info is None:
            info = probe(path, planner.channels(path))
        plans[name] = planner(info)
    return plans


def assemble(
    path: str | Path,
    plans: Mapping[Stream, StreamPlan],
    outputs: Mapping[Stream, Outputs],
    settings: FeatureSettings,
) -> Features:
    """Make the features of a video of what its networks have returned.

    Raises:
        FormatError: The features are not finite, so the weights are damaged.
    """
    streams: dict[Stream, Array] = {}
    steps: list[int] = []
    for name, plan in plans.items():
        own = outputs[name]
        steps = [output.shape[1] for output in own]
        if own:
            # [crops, steps, channels] of each clip to [rows, crops, channels]
            joined = np.concatenate([output.transpose(1, 0, 2) for output in own])
        else:
            joined = np.empty((0, len(plan.crops), plan.channels), np.float32)
        if not np.isfinite(joined).all():
            raise FormatError(
                f"{path}: the features are not finite: the model's weights are damaged; check them "
                "with i3dzoo verify"
            )
        streams[name] = joined.mean(0, keepdims=True) if settings.mean and len(joined) else joined
    first = next(iter(plans.values()))
    rows = rows_of(first, settings, steps)
    notes = tuple(dict.fromkeys(note for plan in plans.values() for note in plan.notes))
    flow = plans["flow"].flow if "flow" in plans else None
    samples = first.samples
    return Features(Path(path), streams, rows, samples.info, len(samples), samples.fps, notes, flow)


def with_streams(
    settings: FeatureSettings, streams: Sequence[Stream], models: int
) -> FeatureSettings:
    """Return the settings for networks of these streams.

    Raises:
        OptionError: The settings name other streams, or two networks are of one stream.
    """
    if models != len(streams) or not 1 <= models <= 2:
        raise OptionError("expected one model, or an RGB and a flow model; they are of one stream")
    found = "both" if models == 2 else streams[0]
    if settings.streams not in (None, found):
        raise OptionError(
            f"streams: expected models for {settings.streams}, found {found}; give an RGB and a "
            f"flow model for both streams, or set streams to {found}"
        )
    return settings.replace(streams=found)


def with_variant(engine: Engine, variant: Variant) -> Engine:
    """Return an engine whose network is of a variant, with the same weights.

    Raises:
        OptionError: Only PyTorch can change the variant of a network that is loaded.
    """
    if engine.metadata is not None and engine.metadata.variant == variant:
        return engine
    if not isinstance(engine, TorchEngine):
        raise OptionError(
            f"the preset needs a network with {variant}; use the checkpoint with --engine torch, "
            "or convert it with --input first, and export that"
        )
    source = engine.network
    with torch.device("meta"):
        network = InceptionI3d(source.num_classes, source.in_channels, variant=variant)
    network.load_state_dict(source.state_dict(), assign=True)
    if source.metadata is not None:
        network.metadata = source.metadata.replace(variant=variant)
    return TorchEngine(network.eval(), engine.tf32)


def _metadata(engine: Engine) -> Metadata:
    if engine.metadata is None:
        raise MetadataError("the model has no metadata; i3dzoo.load gives one that has")
    return engine.metadata


def _check_length(engine: Engine, settings: FeatureSettings) -> None:
    """Check that an exported network takes the windows."""
    if not engine.fixed_frames or engine.metadata is None:
        return
    frames = engine.metadata.input.frames
    if settings.window not in (None, frames):
        raise OptionError(
            f"window: expected {frames} frames, which the model was exported for, found "
            f"{settings.window}; export it with --dynamic frames"
        )
