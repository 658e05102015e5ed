"""Protocols: the tools' conventions, each against a computation of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from i3dzoo.errors import OptionError, ShapeError, UnknownNameError, VideoError
from i3dzoo.fvd import Protocol, load_protocol, protocol_names
from i3dzoo.fvd.frames import to_input
from i3dzoo.fvd.protocol import Squash
from i3dzoo.fvd.sampling import choose_videos, clip_indices

FRAMES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 90, 121), np.uint8))


def _interpolate(frames: torch.Tensor, *size: int, **options: bool) -> torch.Tensor:
    return F.interpolate(frames, size, mode="bilinear", align_corners=False, **options)


def test_styleganv() -> None:
    """The TorchScript file resizes both sides and rescales."""
    expected = _interpolate(FRAMES.float(), 224, 224) / 127.5 - 1
    torch.testing.assert_close(to_input(FRAMES, load_protocol("styleganv")), expected)


def test_common() -> None:
    """The short side to 224, the long one rounded up: 121 / 90 x 224 is 301.2; then the middle."""
    expected = _interpolate(FRAMES / 255, 224, 302)[..., 39 : 39 + 224] * 2 - 1
    torch.testing.assert_close(to_input(FRAMES, load_protocol("common")), expected)
    tall = FRAMES.transpose(2, 3)
    expected = _interpolate(tall / 255, 302, 224)[..., 39 : 39 + 224, :] * 2 - 1
    torch.testing.assert_close(to_input(tall, load_protocol("common")), expected)


def test_videogpt_truncates_first() -> None:
    """Floats are cut to uint8, and then as in common."""
    floats = FRAMES + 0.75
    found = to_input(floats, load_protocol("videogpt"))
    torch.testing.assert_close(found, to_input(FRAMES, load_protocol("common")))


def test_cdfvd() -> None:
    """A detour over 256 with antialiasing, cut to uint8, then both sides to 224."""
    detour = _interpolate(FRAMES / 255, 256, 345, antialias=True)[..., 44 : 44 + 256]
    expected = _interpolate((detour * 255).byte().float(), 224, 224) * 2 / 255 - 1
    found = to_input(FRAMES, load_protocol("cdfvd"))
    # a value on the edge of a whole number may be cut to either side
    assert ((found - expected).abs() > 1e-5).float().mean() < 1e-4


def test_all_ship_whole() -> None:
    """Every protocol names its source and leads to 224x224; the definition is first."""
    assert protocol_names() == ("tf", "cdfvd", "common", "styleganv", "videogpt")
    for name in protocol_names():
        protocol = load_protocol(name)
        assert protocol.source
        assert to_input(FRAMES, protocol).shape == (2, 3, 224, 224)
    assert [load_protocol(name).ddof for name in protocol_names()] == [1, 0, 1, 0, 1]


def test_one_of_your_own(tmp_path: Path) -> None:
    """A TOML file is a protocol; unknown keys and steps that do not fit are refused."""
    path = tmp_path / "mine.toml"
    path.write_text('steps = [{step = "round"}, {step = "squash", edge = 224, kernel = "tf1"}]')
    protocol = load_protocol(path)
    torch.testing.assert_close(
        to_input(FRAMES + 0.4, protocol), to_input(FRAMES, load_protocol("tf"))
    )
    path.write_text('steps = [{step = "squash", edge = 224, kernel = "cubic"}]')
    with pytest.raises(OptionError, match=r"mine.toml: steps\[0\].kernel: .*cubic"):
        load_protocol(path)
    with pytest.raises(UnknownNameError, match=r"nothing: not a protocol .* tf, cdfvd, common"):
        load_protocol("nothing")
    with pytest.raises(ShapeError, match=r"make frames of 121x90 .* expected 224x224"):
        to_input(FRAMES, Protocol(steps=()))
    with pytest.raises(OptionError, match="frames is 8; I3D takes clips of 9 or more"):
        protocol.replace(frames=8)
    huge = Protocol(steps=(Squash(2048, "tf1"), Squash(224, "tf1")))
    assert to_input(FRAMES[:1], huge).shape == (1, 3, 224, 224)


def test_frames_of_clips() -> None:
    """Start, centre, random and every n-th frame; the same seed gives the same clips."""
    protocol = load_protocol("tf").replace(frames=10, every=2)
    assert protocol.span == 19
    assert clip_indices("x", 40, 0, protocol) == [list(range(0, 20, 2))]
    centre = protocol.replace(offset="center")
    assert clip_indices("x", 40, 0, centre)[0][0] == 10
    several = clip_indices("x", 40, 0, centre.replace(clips_per_video=3))
    assert [clip[0] for clip in several] == [0, 10, 21]
    random = protocol.replace(offset="random", clips_per_video=200)
    starts = [clip[0] for clip in clip_indices("x", 40, 3, random)]
    assert (min(starts), max(starts)) == (0, 21)
    assert starts == [clip[0] for clip in clip_indices("x", 40, 3, random)]
    assert starts != [clip[0] for clip in clip_indices("x", 40, 4, random)]
    assert starts != [clip[0] for clip in clip_indices("x", 40, 3, random.replace(seed=1))]
    with pytest.raises(VideoError, match=r"x: has 18 frames; .* needs 19: .*--short-videos skip"):
        clip_indices("x", 18, 0, protocol)
    assert clip_indices("x", 18, 0, protocol.replace(short_videos="skip")) == []
    with pytest.raises(OptionError, match="clips_per_video is 2 but offset is start"):
        protocol.replace(clips_per_video=2)


def test_videos_of_a_set() -> None:
    """Videos are drawn without repetition; a smaller set is taken whole."""
    protocol = load_protocol("styleganv").replace(videos=20)
    chosen = choose_videos(100, protocol)
    assert len(set(chosen)) == 20
    assert chosen == sorted(chosen) == choose_videos(100, protocol)
    assert chosen != choose_videos(100, protocol.replace(seed=1))
    assert choose_videos(7, protocol) == list(range(7))
