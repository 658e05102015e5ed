"""Find the fastest tile of each layer of `FusedI3D` on a GPU."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from i3dzoo.kernels.tiles import CLASSES, Table, Tile, candidates
from i3dzoo.network.architecture import STEM, pad_axis
from i3dzoo.network.fused import LOGITS, FusedI3D
from i3dzoo.progress import SILENT, Progress

SECONDS: Final = 40.0
"""A search for one number of clips tries one tile a layer after this time."""

_CLIP: Final = (64, 224, 224)
_MODEST: Final = 99 << 10  # bytes of shared memory that a program can have on every GPU from Ampere
_REPEATS: Final = 20
_ROUNDS: Final = 4

Launch = Callable[[Tile], Sequence[Tensor]]


class TileSearch(FusedI3D):
    """A network that runs each convolution with every candidate, and keeps the fastest tile.

    A candidate counts only if its result is that of PyTorch, to rounding: a compiler can be wrong.
    """

    def search(
        self, progress: Progress = SILENT, seconds: float = SECONDS, clip: Sequence[int] = _CLIP
    ) -> Table:
        """Return the fastest tile of each layer, for one clip and for eight.

        Args:
            progress: Shows how many layers are done.
            seconds: After this time, one number of clips takes the first tile that is right.
            clip: Frames, height and width of the clips.

        Raises:
            RuntimeError: No tile of a layer computes what PyTorch does.
        """
        layers = 1 + len(self._layers)
        progress.start("layers tuned for this GPU, once", len(CLASSES) * layers, "items")
        self._progress, self._done = progress, 0
        tables = {}
        for count in CLASSES:
            self._best: dict[str, Tile] = {}
            self._deadline = time.monotonic() + seconds
            shape = (count, self.channels, *clip)
            generator = torch.Generator(self.device).manual_seed(0)
            x = torch.rand(shape, generator=generator, device=self.device) * 2 - 1
            self._clips = x.to(self.dtype)
            windows = self._empty_windows(x)
            self._windows(self._clips, windows)
            with torch.inference_mode():
                self._run(windows, clip, frozenset((LOGITS,)))
            tables[str(count)] = self._best
        del self._clips
        return tables

    def _stem(self, windows: Tensor, shape: Sequence[int]) -> Tensor:
        unit = STEM[0]
        tiles = self._candidates(unit.name, windows.shape, None)

        def launch(tile: Tile) -> list[Tensor]:
            return [self._launch_stem(tile, windows, shape)]

        pads = [
            side
            for size in reversed(shape)
            for side in pad_axis(self.variant.padding, size, unit.kernel, 2, pool=False)
        ]
        taps = self._stem_weight.view(7, 7, -1, 2, unit.out_channels)[:, :, : 7 * self.channels, 0]
        weight = taps.reshape(7, 7, 7, self.channels, -1).permute(4, 3, 0, 1, 2)
        exact = F.conv3d(
            F.pad(self._clips.float(), pads), weight.float(), self._stem_bias, stride=2
        )
        self._choose(unit.name, tiles, launch, [exact.relu_().permute(0, 2, 3, 4, 1)])
        return launch(self._best[unit.name])[0]

    def _conv(self, layer: Any, x: Tensor, y: Tensor, z: Tensor | None = None) -> None:
        split = None if z is None else layer.split
        tiles = self._candidates(layer.name, x.shape, split)
        outputs = [y] if z is None else [y, z]

        def launch(tile: Tile) -> list[Tensor]:
            self._launch(layer, tile, x, y, z)
            return outputs

        edge = round(layer.taps ** (1 / 3))
        weight = layer.weight.permute(2, 1, 0).reshape(-1, x.shape[4], edge, edge, edge).float()
        clips = x.permute(0, 4, 1, 2, 3).float()
        exact = F.conv3d(clips, weight, layer.bias[: len(weight)], padding=edge // 2)
        exact = exact.relu_().permute(0, 2, 3, 4, 1)
        parts = [exact[..., first : first + part.shape[4]] for first, part in
                 zip((0, layer.split), outputs, strict=False)]  # fmt: skip
        for output in outputs:
            output.fill_(torch.nan)
        self._choose(layer.name, tiles, launch, parts)
        launch(self._best[layer.name])

    def _choose(
        self, name: str, tiles: Sequence[Tile], launch: Launch, exact: Sequence[Tensor]
    ) -> None:
        times: dict[Tile, float] = {}
        problem: Exception | None = None
        for tile in tiles:
            if times and time.monotonic() > self._deadline:
                break
            try:
                outputs = launch(tile)
                right = all(map(self._is_rounded, outputs, exact))
                for output in outputs:
                    output.fill_(torch.nan)  # not to be taken for the next tile's
                if right:
                    times[tile] = self._time(lambda tile=tile: launch(tile))  # type: ignore[misc] # mypy#5938
            except Exception as error:  # a tile may need more than this GPU has
                problem = error
        if not times:
            raise RuntimeError(f"no tile of {name} computes what PyTorch does") from problem
        self._best[name] = min(times, key=times.__getitem__)
        self._done += 1
        self._progress.update(self._done, layer=name)

    def _is_rounded(self, output: Tensor, exact: Tensor) -> bool:
        limit = torch.finfo(self.dtype).eps * exact.norm()
        return bool((output.float() - exact).norm() <= limit)  # NaN is not

    def _candidates(self, name: str, shape: Sequence[int], split: int | None) -> list[Tile]:
        memory = _MODEST
        if self.device.type == "cuda":
            properties = torch.cuda.get_device_properties(self.device)
            memory = getattr(properties, "shared_memory_per_block_optin", memory)
        return candidates(name, shape, split, memory)

    def _time(self, run: Callable[[], object]) -> float:
        """Return the seconds of one call, from a CUDA graph of several."""
        if self.device.type != "cuda":
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(_REPEATS):
                run()
        times = []
        for _ in range(_ROUNDS):
            torch.cuda.synchronize(self.device)
            start = time.perf_counter()
            graph.replay()
            torch.cuda.synchronize(self.device)
            times.append((time.perf_counter() - start) / _REPEATS)
        return min(times)
