"""FVD and KVD in torchmetrics' convention, against torchmetrics and torch-fidelity."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.exported import noisy, responsive
from helpers.pixel_embedder import PixelEmbedder

from i3dzoo.errors import OptionError, ShapeError, UnknownNameError
from i3dzoo.fvd import compute_fvd, load_protocol
from i3dzoo.metrics import FVD, KVD, I3DFeatures, Logits, register_torch_fidelity
from i3dzoo.pretrained import build


def _videos(seed: int, count: int = 6) -> torch.Tensor:
    """Noisy videos of different brightness, uint8 [N, 9, 3, 10, 12]."""
    random = np.random.default_rng(seed)
    noise = random.integers(0, 128, (count, 9, 3, 10, 12))
    return torch.from_numpy((noise + random.integers(0, 128, (count, 1, 3, 1, 1))).astype("u1"))


@pytest.mark.parametrize("protocol", ["tf", "styleganv"])
def test_batches_are_the_whole(protocol: str) -> None:
    """Batches give what the command computes of all videos; reset forgets."""
    real, fake, pixels = _videos(0), _videos(1, 4), PixelEmbedder()
    chosen = load_protocol(protocol).replace(frames=9)
    expected = compute_fvd(real, fake, chosen, embedder=pixels)
    fvd, kvd = (kind(protocol, embedder=pixels) for kind in (FVD, KVD))
    for metric in (fvd, kvd):
        for batch in real.split(4):
            metric.update(batch, real=True)
        metric(fake, real=False)
    assert fvd.compute().item() == pytest.approx(expected.fvd, rel=1e-5)
    assert kvd.compute().item() == pytest.approx(expected.kvd, rel=1e-4)
    fvd.reset()
    with pytest.raises(ShapeError, match="the real set has no features"):
        fvd.compute()


def test_real_features_are_kept() -> None:
    """With `reset_real_features=False` the real videos are embedded once."""
    fvd = FVD(embedder=PixelEmbedder(), reset_real_features=False)
    fvd.update(_videos(0), real=True)
    for seed in (1, 1):
        fvd.update(_videos(seed), real=False)
        value = fvd.compute()
        fvd.reset()
    assert value > 0
    assert fvd.real.count == 6


def test_floats() -> None:
    """Floats need a range, because a batch does not show it; uint8 does not."""
    videos, pixels = _videos(2), PixelEmbedder()
    expected = Logits(embedder=pixels)(videos)
    for value_range, floats in (("0..1", videos / 255), ("-1..1", videos / 127.5 - 1)):
        logits = Logits(embedder=pixels, value_range=value_range)
        torch.testing.assert_close(logits(floats), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(logits(videos), expected)
    with pytest.raises(OptionError, match=r"are floats; .* value_range: 0..1"):
        Logits(embedder=pixels)(videos / 255)


def test_refusals() -> None:
    """Videos that are too short, and clips of two lengths."""
    fvd = FVD(embedder=PixelEmbedder())
    with pytest.raises(ShapeError, match="have 8 frames; I3D takes clips of 9 or more"):
        fvd.update(_videos(0)[:, :8], real=True)
    fvd.update(_videos(0), real=True)
    with pytest.raises(ShapeError, match="have 18 frames, those before 9"):
        fvd.update(_videos(0).repeat(1, 2, 1, 1, 1), real=False)


def test_network_is_not_trained() -> None:
    """A model that has the metric neither trains nor saves the network."""
    logits = Logits(embedder=PixelEmbedder())
    assert not list(logits.parameters())
    assert not logits.state_dict()


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception")
def test_torchmetrics() -> None:
    """Torchmetrics' FID and KID with the network as feature are FVD and KVD."""
    image = pytest.importorskip("torchmetrics.image", reason="torchmetrics is not installed")
    pixels = PixelEmbedder()
    logits = Logits(embedder=pixels)
    logits.num_features = 24
    fid = image.FrechetInceptionDistance(feature=logits).set_dtype(torch.float64)
    kid = image.KernelInceptionDistance(feature=logits, subsets=1, subset_size=6)
    fvd, kvd = FVD(embedder=pixels), KVD(embedder=pixels)
    for metric in (fid, kid, fvd, kvd):
        metric.update(_videos(0), real=True)
        metric.update(_videos(1), real=False)
    assert fid.compute().item() == pytest.approx(fvd.compute().item(), rel=1e-4)
    assert kid.compute()[0].item() == pytest.approx(kvd.compute().item(), rel=1e-3)


class _Dataset(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, videos: torch.Tensor) -> None:
        self.videos = videos

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.videos[number]


def test_torch_fidelity() -> None:
    """torch-fidelity computes FVD and KVD with the network as its feature extractor."""
    fidelity = pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")
    pixels = PixelEmbedder()
    name = register_torch_fidelity(embedder=pixels)
    options: dict[str, Any] = {"fid": True, "kid": True, "kid_subsets": 1, "kid_subset_size": 6}
    values = fidelity.calculate_metrics(
        input1=_Dataset(_videos(0)),
        input2=_Dataset(_videos(1)),
        feature_extractor=name,
        cuda=False,
        verbose=False,
        cache=False,
        save_cpu_ram=True,
        **options,
    )
    fvd, kvd = FVD(embedder=pixels), KVD(embedder=pixels)
    for metric in (fvd, kvd):
        metric.update(_videos(0), real=True)
        metric.update(_videos(1), real=False)
    distance = values["frechet_inception_distance"]
    assert distance == pytest.approx(fvd.compute().item(), rel=1e-4)
    kernel = values["kernel_inception_distance_mean"]
    assert kernel == pytest.approx(kvd.compute().item(), rel=1e-3)


def test_features_of_any_network() -> None:
    """A module has the features of the network on its own preprocessing, and stays in eval mode."""
    network = build(responsive("rgb", 5))
    videos = torch.nn.functional.interpolate(_videos(4, 3).float(), (3, 40, 48)).byte()
    clips = torch.stack([network.preprocess(video.permute(0, 2, 3, 1)) for video in videos])
    with torch.inference_mode():
        expected = {
            "pooled": network.features(clips),
            "logits": network(clips),
            "Mixed_3b": network.endpoints(clips, ["Mixed_3b"])["Mixed_3b"].mean((2, 3, 4)),
        }
    for endpoint, features in expected.items():
        module = I3DFeatures(network, endpoint, batch_size=2).train()
        actual = module(videos)
        assert actual.shape == (3, module.num_features)
        torch.testing.assert_close(actual, features, atol=1e-4, rtol=1e-4)
        assert not any(part.training for part in module.modules())
        assert not any(parameter.requires_grad for parameter in module.parameters())
    floats = I3DFeatures(network, value_range="0..1")(videos.transpose(1, 2) / 255)
    torch.testing.assert_close(floats, expected["pooled"], atol=1e-3, rtol=1e-3)
    with pytest.raises(OptionError, match="are floats; say what they stand for"):
        I3DFeatures(network)(videos / 255)
    with pytest.raises(ShapeError, match="the videos have 8 frames; I3D takes clips of 9 or more"):
        I3DFeatures(network)(videos[:, :8])
    with pytest.raises(UnknownNameError, match="there is no endpoint 'Mixed_9z'"):
        I3DFeatures(network, "Mixed_9z")
    with pytest.raises(OptionError, match="expected a network of RGB"):
        I3DFeatures(build(noisy("flow", 5)))
