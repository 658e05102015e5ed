"""What FVD reads: arrays of videos and of features, saved statistics, protocols."""

import json
from pathlib import Path

import numpy as np
from helpers.pixel_embedder import PixelEmbedder

from fuzz import mutators as damage
from fuzz.kind import Kind
from fuzz.shared import Shared
from i3dzoo.fvd import Protocol, load_protocol, statistics_of
from i3dzoo.fvd.frames import to_input
from i3dzoo.fvd.sources import Known, open_source
from i3dzoo.fvd.statistics_file import Settings, write_statistics


def _videos(folder: Path, _: Shared) -> None:
    np.save(folder / "x.npy", np.zeros((2, 9, 8, 10, 3), "u1"))


def _videos_zip(folder: Path, _: Shared) -> None:
    np.savez_compressed(folder / "x.npz", np.zeros((2, 3, 9, 8, 10), "f4") - 1)


def _features(folder: Path, _: Shared) -> None:
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(12, 5)))


def _statistics(folder: Path, _: Shared) -> None:
    statistics = statistics_of(np.random.default_rng(0).normal(size=(12, 5)))
    inputs = load_protocol("tf").inputs
    settings = Settings(weights=PixelEmbedder().digest, inputs=inputs, source="", videos=12)
    write_statistics(folder / "x.safetensors", {16: statistics}, settings)


def _protocol(folder: Path, _: Shared) -> None:
    steps = [{"step": "short-side", "edge": 256, "kernel": "tf1"}]
    steps += [{"step": "round"}, {"step": "centre-crop", "edge": 224}]
    lines = ", ".join(
        "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in step.items()) + "}"
        for step in steps
    )
    (folder / "x.toml").write_text(f"steps = [{lines}]\nddof = 0\nframes = 9\nevery = 2\n")


def read_set(path: Path) -> None:
    """Read the first video of a set, without the network."""
    videos = open_source(path)
    if not isinstance(videos, Known):
        list(videos.open(0).read(range(9)))
        videos.digest()


def read_protocol(path: Path) -> None:
    """Read a protocol, and prepare a frame by it."""
    import torch

    protocol: Protocol = load_protocol(path)
    to_input(torch.zeros(3, 40, 50), protocol)


_SET = "fuzz.fvd_kinds:read_set"

KINDS = (
    Kind("fvd videos", _videos, {"x.npy": damage.damage_npy}, (_SET, "x.npy")),
    Kind("fvd videos npz", _videos_zip, {"x.npz": damage.damage_zip}, (_SET, "x.npz")),
    Kind("fvd videos in npz", _videos_zip,
         {"x.npz": damage.damage_member("arr_0.npy", damage.damage_npy)}, (_SET, "x.npz")),
    Kind("fvd features", _features, {"x.npy": damage.damage_npy}, ("fvd", "x.npy", "x.npy")),
    Kind("fvd statistics", _statistics, {"x.safetensors": damage.damage_safetensors},
         ("fvd", "x.safetensors", "x.safetensors")),
    Kind("fvd protocol", _protocol, {"x.toml": damage.damage_toml},
         ("fuzz.fvd_kinds:read_protocol", "x.toml")),
)  # fmt: skip
