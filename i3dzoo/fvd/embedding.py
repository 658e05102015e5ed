"""Turn videos into feature vectors: the logits of I3D, averaged over time, before the softmax."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from i3dzoo.arrays import Array
from i3dzoo.checkpoints.metadata import Input, default_input
from i3dzoo.devices import Device
from i3dzoo.distributed import ProcessGroup
from i3dzoo.engines.fused import FusedEngine
from i3dzoo.engines.torch import DTYPES, TorchEngine, check_precision
from i3dzoo.errors import FormatError, OptionError, VideoError
from i3dzoo.fetch.find import find, open_checkpoint
from i3dzoo.fvd.frames import to_input
from i3dzoo.fvd.protocol import EDGE, Protocol
from i3dzoo.fvd.sampling import choose_videos, clip_indices
from i3dzoo.fvd.statistics import Statistics
from i3dzoo.fvd.video_sets import FolderOfVideos, VideoSet
from i3dzoo.network.fused import can_fuse
from i3dzoo.onnx.options import Precision
from i3dzoo.pretrained import DeployedI3d, InceptionI3d
from i3dzoo.progress import SILENT, Progress
from i3dzoo.video import BadVideo, Clip, VideoInfo
from i3dzoo.video.pipeline import DecoderName, PipelineOptions, run_plans
from i3dzoo.video.plan import Plan, Resize

NETWORK = "rgb_scratch"
"""The weights of TF-Hub's module, to the bit."""

MEASURED_ERRORS: Final[Mapping[str, float]] = {"tf32": 6.2e-4, "fp16": 5.6e-4, "bf16": 4.6e-3}
"""Largest relative error of FVD by precision, on an H100.

Source: `benchmarks/fvd_precision.py`, three pairs of sets of 512 clips; fp16 is the larger one of
PyTorch and of the engine `fused`, whose own is 4.8e-4.
"""


class Embedder:
    """The network of FVD, in float32 unless it is told otherwise.

    Args:
        network: RGB, with a head, and with values from -1 to 1 as input. It is put into eval mode
            and into the precision.
        batch_size: Clips that the network runs on at once.
        precision: `fp32`, in which FVD is defined, or another that the device computes in. `fp16`
            is the engine `fused` on the GPUs that have it.

    Attributes:
        digest: SHA-256 of the weights, of all tensors in the order of their names.
        note: A remark if the weights are not those of the definition.
    """

    def __init__(
        self,
        network: InceptionI3d,
        batch_size: int = 8,
        precision: Precision = "fp32",
        decoder: DecoderName = "auto",
    ) -> None:
        metadata = network.metadata
        if network.in_channels != 3 or not network.num_classes:
            raise OptionError(
                "FVD needs a network for RGB with a head; the definition's is rgb_scratch"
            )
        if metadata is not None and not metadata.input.same_pixels(default_input("rgb")):
            raise OptionError(
                "FVD needs a network whose input is RGB from -1 to 1; the model's is "
                f"{metadata.input}"
            )
        device = next(network.parameters()).device
        check_precision(precision, device)
        self.digest = _digest(network)
        self.network = network.eval()
        self._engine: TorchEngine | FusedEngine
        if precision == "fp16" and can_fuse(device):
            self._engine = FusedEngine(DeployedI3d(self.network))
        else:
            self.network.to(DTYPES[precision])
            # TF32 changes FVD by a thousandth
            self._engine = TorchEngine(self.network, tf32=precision == "tf32")
        self.batch_size, self.precision, self.decoder = batch_size, precision, decoder
        self.device = self._engine.device
        zoo = metadata.zoo if metadata else None
        self.note = (
            None
            if zoo == NETWORK
            else f"the weights are not those of the definition, {NETWORK}; the numbers cannot be "
            "compared with published ones"
        )

    @classmethod
    def load(
        cls,
        model: str | Path = NETWORK,
        device: Device = "auto",
        batch_size: int = 8,
        progress: Progress = SILENT,
        precision: Precision = "fp32",
        decoder: DecoderName = "auto",
    ) -> "Embedder":
        """Load a network by a zoo name, a file or an address on the Hub.

        Raises:
            OptionError: The device does not compute in this precision, or the network is not one
                for FVD.
        """
        checkpoint = open_checkpoint(find(model, progress=progress))
        network = TorchEngine.from_checkpoint(checkpoint, device).network
        return cls(network, batch_size, precision, decoder)

    def embed(self, clips: Tensor) -> Tensor:
        """Return the features [B, 400] of clips [B, 3, T, 224, 224] from -1 to 1, on the CPU."""
        features = self._engine.step_logits(clips).mean(1).cpu()
        if not torch.isfinite(features).all():
            raise FormatError(
                "the features are not finite: the weights are damaged; check them with i3dzoo "
                "verify"
            )
        return features


@dataclass(frozen=True, eq=False)
class Embedded:
    """The statistics of a set of videos.

    Attributes:
        statistics: By the number of frames of a clip.
        videos: Number of videos that were taken.
        short: Names of the videos that were left out because they are shorter than a clip.
        fps: The frame rates of the videos, as far as they are known.
    """

    statistics: dict[int, Statistics]
    videos: int
    short: tuple[str, ...] = ()
    fps: frozenset[float] = frozenset()


def embed_videos(
    embedder: Embedder,
    videos: VideoSet,
    protocol: Protocol,
    lengths: Sequence[int] = (),
    progress: Progress = SILENT,
    processes: ProcessGroup = ProcessGroup(),  # noqa: B008 - it is frozen
) -> Embedded:
    """Return the statistics of the features of a set of videos.

    Several processes share the videos, and each returns the statistics of all of them.

    Args:
        embedder: The network.
        videos: The videos.
        protocol: The sampling, and the steps from a frame to the input.
        lengths: Further numbers of frames, of which each clip is also taken: the first of its
            frames.
        progress: Shows the videos.
        processes: The processes of the run.

    Raises:
        VideoError: A video cannot be decoded, or is too short.
    """
    chosen = choose_videos(len(videos), protocol)
    # a run of successive videos, so that the sample of all is in the order of one process
    first, end = (len(chosen) * (processes.rank + part) // processes.world_size for part in (0, 1))
    own = chosen[first:end]
    statistics = {n: Statistics(seed=processes.rank) for n in (*lengths, protocol.frames)}
    kind = _FolderReader if isinstance(videos, FolderOfVideos) else _Reader
    reader = kind(videos, own, protocol, progress)
    for features in reader.features(embedder, [*statistics]):
        for number, of_length in enumerate(statistics.values()):
            of_length.update(features[:, number])
    merged: dict[int, Statistics] = {}
    short: list[str] = []
    fps: set[float] = set()
    for part, part_short, part_fps in processes.gather([(statistics, reader.short, reader.fps)]):
        for frames, of_length in part.items():
            merged.setdefault(frames, Statistics()).merge(of_length)
        short += part_short
        fps |= part_fps
    return Embedded(merged, len(chosen) - len(short), tuple(short), frozenset(fps))


class _Reader:
    """Reads the clips of videos, and notes what they are like."""

    def __init__(
        self, videos: VideoSet, numbers: Sequence[int], protocol: Protocol, progress: Progress
    ) -> None:
        self.videos, self.numbers = videos, numbers
        self.protocol, self.progress = protocol, progress
        self.short: list[str] = []
        self.fps: set[float] = set()

    def features(self, embedder: Embedder, lengths: Sequence[int]) -> Iterator[Array]:
        """Yield features of several clips, float32 [B, lengths, D]."""
        held: list[Tensor] = []
        for clip in self._clips():
            held.append(clip)
            if len(held) == embedder.batch_size:
                yield _embed(embedder, lengths, torch.stack(held)).numpy()
                held = []
        if held:
            yield _embed(embedder, lengths, torch.stack(held)).numpy()

    def _clips(self) -> Iterator[Tensor]:
        """Yield clips as input of the network, float32 [3, T, 224, 224]."""
        self.progress.start(f"videos of {self.videos.name}", len(self.numbers), "items")
        for done, number in enumerate(self.numbers, 1):
            video = self.videos.open(number)
            if video.fps is not None:
                self.fps.add(round(video.fps, 2))
            clips = clip_indices(video.name, video.frames, number, self.protocol)
            if not clips:
                self.short.append(video.name)
            for indices in clips:
                frames = [to_input(frame, self.protocol) for frame in video.read(indices)]
                yield torch.stack(frames, dim=1)
            self.progress.update(done)


class _FolderReader(_Reader):
    """Reads a folder of videos, of which it decodes several at once."""

    def features(self, embedder: Embedder, lengths: Sequence[int]) -> Iterator[Array]:
        """Yield the features of the clips of a video, float32 [B, lengths, D]."""
        assert isinstance(self.videos, FolderOfVideos)  # noqa: S101 - this reader is for them
        numbers = {self.videos.files[number]: number for number in self.numbers}
        self.progress.start(f"videos of {self.videos.name}", len(numbers), "items")
        options = PipelineOptions(
            device=embedder.device, batch_size=embedder.batch_size, decoder=embedder.decoder
        )
        results = run_plans(
            lambda clips: (_embed(embedder, lengths, batch) for batch in clips),
            [*numbers],
            lambda info: self._plan(info, numbers[info.path]),
            options,
        )
        for done, result in enumerate(results, 1):
            if isinstance(result, BadVideo):
                raise result.error or VideoError(result.reason)
            if not result.outputs:
                self.short.append(result.video)
            else:
                yield np.concatenate(result.outputs)
            if result.plan.info.fps is not None:
                self.fps.add(round(result.plan.info.fps, 2))
            self.progress.update(done)

    def _plan(self, info: VideoInfo, number: int) -> "_ClipPlan":
        clips = [
            Clip(np.array(indices), indices[0], indices[-1], None, None)
            for indices in clip_indices(str(info.path), info.frames, number, self.protocol)
        ]
        spec = Input(resize=None, crop=EDGE)
        size = Resize("exact", (EDGE, EDGE))
        return _ClipPlan(
            info=info, clips=tuple(clips), spec=spec, resize=size, protocol=self.protocol
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class _ClipPlan(Plan):
    """The clips of a video, whose frames are resized by the steps of a protocol."""

    protocol: Protocol

    def resized(self, pixels: Tensor) -> tuple[Tensor, bool]:
        """Return frames as input of the network, from -1 to 1."""
        return to_input((pixels + 1) * 127.5 if self.info.floats else pixels, self.protocol), True


def _embed(embedder: Embedder, lengths: Sequence[int], clips: Tensor) -> Tensor:
    """Return the features of the first frames of clips, by number of frames: [B, lengths, D]."""
    return torch.stack([embedder.embed(clips[:, :, :frames]) for frames in lengths], dim=1)


def _digest(network: InceptionI3d) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if not name.endswith("num_batches_tracked"):
            digest.update(tensor.float().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
