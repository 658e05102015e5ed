"""FVD and KVD as metrics of a training loop, in torchmetrics' convention.

torchmetrics is not needed:

    fvd = FVD()
    for batch in real:
        fvd.update(batch, real=True)
    for batch in fake:
        fvd.update(batch, real=False)
    print(fvd.compute())

`Logits` is the network alone, for the FID and KID of torchmetrics and torch-fidelity, and
`I3DFeatures` any network and endpoint.
"""

from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from i3dzoo.engines.torch import TorchEngine
from i3dzoo.errors import DependencyError, OptionError, ShapeError
from i3dzoo.features.readout import Readout, readout_channels, stream
from i3dzoo.fvd import Embedder, Protocol, Statistics, load_protocol
from i3dzoo.fvd.distance import frechet_distance, kernel_distance
from i3dzoo.fvd.frames import to_input
from i3dzoo.fvd.video_sets import ArrayOfVideos, Layout, ValueRange
from i3dzoo.network.architecture import MIN_FRAMES, POOLED
from i3dzoo.pretrained import InceptionI3d, load
from i3dzoo.video.plan import Crop, resize_of, resize_pixels


class Logits(nn.Module):
    """Videos to the features of FVD, [N, T, ...] to [N, 400].

    As `feature` of torchmetrics' `FrechetInceptionDistance` and `KernelInceptionDistance`, it makes
    FVD and KVD of them.

    Args:
        protocol: The steps from a frame to the input of the network.
        embedder: The network; None loads `rgb_scratch`.
        layout: Order of the axes; None finds the axis of 3.
        value_range: What floats stand for; without it, only uint8 is taken, because the values of
            one batch do not show the range of all. torchmetrics' `normalize=True` is `0..1`.
    """

    num_features = 400

    def __init__(
        self,
        protocol: str | Protocol = "tf",
        *,
        embedder: Embedder | None = None,
        layout: Layout | None = None,
        value_range: ValueRange | None = None,
    ) -> None:
        super().__init__()
        self.protocol = load_protocol(protocol) if isinstance(protocol, str) else protocol
        self.layout, self.value_range = layout, value_range
        # outside of the modules, so that a trainer neither trains nor saves the network
        self._embedder = [embedder or Embedder.load()]

    def forward(self, videos: Tensor) -> Tensor:
        """Return the features, float32 [N, 400] on the device of the videos.

        Args:
            videos: uint8 or floats [N, T, 3, H, W], [N, 3, T, H, W] or [N, T, H, W, 3], with T of 9
                or more; all frames are taken.

        Raises:
            OptionError: They are floats, and `value_range` is not given.
            ShapeError: They have other axes, or fewer frames.
        """
        return self.embed(self.open(videos)).to(videos.device)

    def open(self, videos: Tensor) -> ArrayOfVideos:
        """Check the videos, and return them with their axes and their range."""
        return _open(videos, self.layout, self.value_range, MIN_FRAMES)

    @torch.no_grad()
    def embed(self, videos: ArrayOfVideos) -> Tensor:
        """Return the features of all frames of the videos, float32 [N, 400] on the CPU."""
        (embedder,) = self._embedder
        inputs = []
        for number in range(len(videos)):
            frames = torch.stack(list(videos.open(number).read(range(videos.frames))))
            inputs.append(to_input(frames, self.protocol).transpose(0, 1))
        batches = torch.split(torch.stack(inputs), embedder.batch_size)
        return torch.cat([embedder.embed(batch) for batch in batches])


class I3DFeatures(nn.Module):
    """Videos to features, [N, T, ...] to [N, num_features], of any RGB network and endpoint.

    It is a `feature` of torchmetrics' metrics, and an extractor of torch-fidelity. The frames are
    resized, cropped and normalised as the checkpoint says. For the numbers of FVD, use `FVD` or
    `Logits`.

    Examples:
        >>> import i3dzoo, torch
        >>> features = i3dzoo.I3DFeatures("mine.safetensors")
        >>> features(torch.zeros(2, 16, 3, 48, 64, dtype=torch.uint8)).shape
        torch.Size([2, 1024])

    Args:
        model: A network from `i3dzoo.load`, or what `i3dzoo.load` takes. It is put into eval mode
            for good, and its parameters are not trained.
        endpoint: `pooled`, `logits`, or one of `i3dzoo.network.architecture.ENDPOINTS`, averaged.
        layout: Order of the axes; None finds the axis of 3.
        value_range: What floats stand for; without it, only uint8 is taken.
        batch_size: Videos that the network runs on at once.

    Attributes:
        num_features: Numbers of a video.

    Raises:
        OptionError: The network is not of RGB, or has no description.
        UnknownNameError: There is no such model, or no such endpoint.
    """

    def __init__(
        self,
        model: InceptionI3d | str | Path,
        endpoint: str = POOLED,
        *,
        layout: Layout | None = None,
        value_range: ValueRange | None = None,
        batch_size: int = 8,
    ) -> None:
        super().__init__()
        network = model if isinstance(model, InceptionI3d) else load(model)
        if network.metadata is None or network.metadata.stream != "rgb":
            raise OptionError("expected a network of RGB with a description, as i3dzoo.load gives")
        self.spec, self.endpoint, self.batch_size = network.metadata.input, endpoint, batch_size
        self.layout, self.value_range = layout, value_range
        self.readout = Readout(endpoint)
        self.readout.check(TorchEngine(network))
        self.num_features = readout_channels(endpoint, network.num_classes)
        self.network = network.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "I3DFeatures":  # noqa: ARG002 - the name is PyTorch's
        """Stay in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, videos: Tensor) -> Tensor:
        """Return the features, float32 [N, num_features] on the device of the videos.

        Args:
            videos: uint8 or floats [N, T, 3, H, W], [N, 3, T, H, W] or [N, T, H, W, 3]; all frames
                are one clip, of 9 or more.

        Raises:
            OptionError: They are floats, and `value_range` is not given.
            ShapeError: They have other axes, fewer frames, or frames smaller than the crop.
        """
        held = _open(videos, self.layout, self.value_range, self.network.variant.min_frames)
        engine = TorchEngine(self.network)
        clips = [self._clip(held, number) for number in range(len(held))]
        batches = torch.split(torch.stack(clips), self.batch_size)
        features = [steps[:, 0].float() for steps in stream(engine, batches, self.readout)]
        return torch.cat(features).to(videos.device)

    def _clip(self, videos: ArrayOfVideos, number: int) -> Tensor:
        """Return a video as input of the network, float32 [3, T, edge, edge]."""
        frames = torch.stack(list(videos.open(number).read(range(videos.frames))))
        size = frames.shape[2:]
        frames = resize_pixels(frames, resize_of(self.spec)).float()
        height, width = frames.shape[2:]
        edge = self.spec.crop
        if min(height, width) < edge:
            raise ShapeError(
                f"the videos have {size[1]}x{size[0]} pixels, and the crop of the network is {edge}"
            )
        top, left = Crop().corner(height, width, edge)
        frames = frames[..., top : top + edge, left : left + edge]
        if self.spec.channels == "bgr":
            frames = frames.flip(1)
        mean = frames.new_tensor(self.spec.mean).view(-1, 1, 1)
        std = frames.new_tensor(self.spec.std).view(-1, 1, 1)
        return ((frames / 255 - mean) / std).transpose(0, 1)


class _Distance:
    """What FVD and KVD share: statistics of both sets, in several processes too.

    Args:
        protocol: A name of `i3dzoo.fvd.protocol_names()`, or a `Protocol`; its steps and its `ddof`
            apply, and the caller samples.
        reset_real_features: Whether `reset` forgets the real features, too.
        options: Further arguments of `Logits`: `embedder`, `layout` and `value_range`.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    def __init__(
        self,
        protocol: str | Protocol = "tf",
        *,
        reset_real_features: bool = True,
        **options: Any,
    ) -> None:
        self.logits = Logits(protocol, **options)
        self.reset_real_features = reset_real_features
        self.real, self.fake = self._empty(), self._empty()
        self._frames: int | None = None

    def update(self, videos: Tensor, real: bool) -> None:
        """Add a batch of videos, uint8 or floats, to the real or to the fake ones; see `Logits`.

        Raises:
            ShapeError: They have another number of frames than those before.
        """
        held = self.logits.open(videos)
        if self._frames not in (None, held.frames):
            raise ShapeError(
                f"the videos have {held.frames} frames, those before {self._frames}; expected "
                "clips of one length"
            )
        self._frames = held.frames
        (self.real if real else self.fake).update(self.logits.embed(held).numpy())

    def compute(self) -> Tensor:
        """Return the distance of all videos of all processes, float64.

        Every process must call it.

        Raises:
            ShapeError: There are no real or no fake videos.
        """
        real, fake = _gathered(self.real), _gathered(self.fake)
        return torch.tensor(self._distance(real, fake), dtype=torch.float64)

    def reset(self) -> None:
        """Forget the fake videos, and the real ones unless `reset_real_features` is False."""
        self.fake = self._empty()
        if self.reset_real_features:
            self.real, self._frames = self._empty(), None

    def __call__(self, videos: Tensor, real: bool) -> None:
        """Add a batch of videos, as `update`."""
        self.update(videos, real)

    def _distance(self, real: Statistics, fake: Statistics) -> float:
        raise NotImplementedError

    def _empty(self) -> Statistics:
        rank = torch.distributed.get_rank() if _several_processes() else 0
        return Statistics(seed=rank)


class FVD(_Distance):
    """The Fréchet Video Distance; see `i3dzoo.fvd` for the protocols."""

    def _distance(self, real: Statistics, fake: Statistics) -> float:
        return frechet_distance(real, fake, self.logits.protocol.ddof)


class KVD(_Distance):
    """The Kernel Video Distance: the unbiased squared MMD with KID's kernel.

    It is computed of at most `i3dzoo.fvd.statistics.SAMPLE` videos of each set, in one block.
    """

    def _distance(self, real: Statistics, fake: Statistics) -> float:
        return kernel_distance(real.sample, fake.sample)


def register_torch_fidelity(
    name: str = "i3d-fvd", features: I3DFeatures | None = None, **options: Any
) -> str:
    """Register a network as a feature extractor of torch-fidelity, and return its name.

    `calculate_metrics(feature_extractor=name, fid=True, kid=True, ...)` with data sets of uint8
    videos [T, 3, H, W] is FVD and KVD, or the same distances of other features. Its FID divides by
    N - 1.

    Args:
        name: Name to register.
        features: Features other than those of FVD.
        options: Arguments of `Logits`, without `features`.

    Raises:
        DependencyError: torch-fidelity is not installed.
    """
    try:
        from torch_fidelity import register_feature_extractor
        from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    except ImportError as error:
        raise DependencyError(
            "torch-fidelity is not installed: pip install torch-fidelity"
        ) from error
    logits = Logits(**options) if features is None else features

    class Extractor(FeatureExtractorBase):  # type: ignore[misc] # the library has no types
        """The features of I3D, under the name `logits`."""

        def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("logits",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:  # noqa: ARG004 - the library's
            return "logits"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        @staticmethod
        def get_dummy_input_for_compile() -> Tensor:
            return torch.zeros(1, 16, 3, 64, 64, dtype=torch.uint8)

        def forward(self, videos: Tensor) -> tuple[Tensor, ...]:
            return (logits(videos),)

    register_feature_extractor(name, Extractor)
    return name


def _open(
    videos: Tensor, layout: Layout | None, value_range: ValueRange | None, min_frames: int
) -> ArrayOfVideos:
    """Check videos, and return them with their axes and their range."""
    floats = videos.is_floating_point()
    if floats and value_range is None:
        raise OptionError(
            "the videos are floats; say what they stand for with value_range: 0..1, -1..1 or 0..255"
        )
    held = ArrayOfVideos("videos", videos, layout, value_range if floats else None)
    if held.frames < min_frames:
        raise ShapeError(
            f"the videos have {held.frames} frames; I3D takes clips of {min_frames} or more"
        )
    return held


def _several_processes() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _gathered(own: Statistics) -> Statistics:
    """Return the statistics of all processes, the same on each."""
    parts: list[Any] = [own]
    if _several_processes():
        parts = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, own)
    merged = Statistics()
    for part in parts:
        merged.merge(part)
    return merged
