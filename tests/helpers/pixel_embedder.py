"""A stand-in for the network of FVD, which takes a second a clip."""

import subprocess

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.cli import call

from i3dzoo.distributed import ProcessGroup
from i3dzoo.fvd import Embedder, compute_fvd, load_protocol
from i3dzoo.metrics import FVD


class PixelEmbedder(Embedder):
    """Features of a clip: brightness and motion of 2x2 cells, 24 numbers."""

    def __init__(self, digest: str = "0" * 64) -> None:
        self.digest, self.note, self.batch_size, self.precision = digest, None, 2, "fp32"
        self.device = torch.device("cpu")
        self.decoder = "cpu"

    def embed(self, clips: torch.Tensor) -> torch.Tensor:
        """Return the features [B, 24]."""
        assert clips.shape[1:2] + clips.shape[3:] == (3, 224, 224)
        cells = F.adaptive_avg_pool3d(clips, (clips.shape[2], 2, 2))
        return torch.cat([cells.mean(2), cells.diff(dim=2).abs().mean(2)], 1).flatten(1)


def distances_of_pixels(real: str, fake: str) -> list[float]:
    """Compute FVD as one of several processes: by the function, of whole sets, and by the metric.

    Returns FVD, KVD, the number of real videos, and the FVD of the metric.
    """
    processes, pixels = ProcessGroup.join("cpu"), PixelEmbedder()
    sets = np.load(real), np.load(fake)
    protocol = load_protocol("tf").replace(frames=9)
    result = compute_fvd(*sets, protocol, embedder=pixels, lengths=(), processes=processes)
    metric = FVD(embedder=pixels)
    for videos, is_real in zip(sets, (True, False), strict=True):
        share = torch.from_numpy(videos)[processes.rank :: processes.world_size]
        metric.update(share, real=is_real)
    return [result.fvd, result.kvd, result.real.count, metric.compute().item()]


def run_fvd(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `i3dzoo fvd` in this process, with the stand-in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Embedder, "load", lambda *_: PixelEmbedder())
        return call("fvd", *arguments, code=0)
