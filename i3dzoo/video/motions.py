"""Render moving textures whose class is only in their motion.

A clip shows a random texture through a window that shifts, turns and zooms. The texture is a sum of
octaves, each with an independent uniform offset, so that shifting, turning or zooming it gives
another texture of the same distribution: a single frame does not reveal how the window moves. All
motions of one seed share one frame exactly, the anchor.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from i3dzoo.video.info import Frames

_EDGE = 512  # texels of a texture, which repeats
_TEXTURES = 4
_FEATURE = 24.0  # texels of the smallest detail
_FAR = 64 * _EDGE * (1 + 1j)  # keeps coordinates positive, so that truncation rounds down
_FINEST, _COARSEST = -1.5, 1.5  # visible octaves, relative to the middle one
_TEXELS = 96.0  # texels of the middle octave in the height of a frame


@dataclass(frozen=True)
class Motion:
    """A motion of the texture.

    Attributes:
        name: Name in words.
        drift: Velocity x + yj in frame heights per frame; y points down.
        spin: Rotation in radians per frame, clockwise.
        zoom: Growth in octaves per frame.
        sway: Amplitude of an oscillation, x + yj in frame heights.
        orbit: Amplitude of a second oscillation, a quarter period apart; with `sway`, a circle.
        rock: Amplitude of an oscillating rotation in radians.
        pulse: Amplitude of an oscillating zoom in octaves.
        period: Frames of a period of the oscillations.
        halting: Whether the drift stops once a period.
    """

    name: str
    drift: complex = 0j
    spin: float = 0.0
    zoom: float = 0.0
    sway: complex = 0j
    orbit: complex = 0j
    rock: float = 0.0
    pulse: float = 0.0
    period: float = 16.0
    halting: bool = False

    def pose(
        self, time: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.complex128], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return shift (heights), rotation (radians) and zoom (octaves) at a time in frames."""
        omega = 2 * math.pi / self.period
        swing = np.sin(omega * time)
        travelled = time - swing / omega if self.halting else time
        shift = self.drift * travelled + self.sway * swing
        shift = shift + self.orbit * (1 - np.cos(omega * time))
        return shift, self.spin * time + self.rock * swing, self.zoom * time + self.pulse * swing


def _motions() -> tuple[Motion, ...]:
    winds = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")
    ways = {name: complex(np.exp(0.25j * math.pi * i)) for i, name in enumerate(winds)}
    motions = [Motion("still")]
    for pace, speed in (("slowly", 0.02), ("fast", 0.05)):
        motions += [Motion(f"{name} {pace}", drift=way * speed) for name, way in ways.items()]
    for pace, speed in (("slowly", 1.0), ("fast", 2.5)):
        for sense, sign in (("clockwise", 1), ("anticlockwise", -1)):
            motions.append(Motion(f"turning {sense} {pace}", spin=sign * speed * 0.025))
        for sense, sign in (("growing", 1), ("shrinking", -1)):
            motions.append(Motion(f"{sense} {pace}", zoom=sign * speed * 0.02))
    for pace, period in (("slowly", 24.0), ("fast", 10.0)):
        for axis in ("right", "down right", "down", "down left"):
            motions.append(Motion(f"swinging {axis} {pace}", sway=ways[axis] * 0.1, period=period))
        for sense, sign in (("clockwise", 1), ("anticlockwise", -1)):
            orbit = sign * 0.1j
            motions.append(Motion(f"circling {sense} {pace}", sway=0.1, orbit=orbit, period=period))
        motions.append(Motion(f"rocking {pace}", rock=0.2, period=period))
        motions.append(Motion(f"pulsing {pace}", pulse=0.2, period=period))
    for turn, spin in (("clockwise", 0.04), ("anticlockwise", -0.04)):
        for growth, zoom in (("growing", 0.03), ("shrinking", -0.03)):
            motions.append(Motion(f"spiralling {turn}, {growth}", spin=spin, zoom=zoom))
    for way in ("right", "down", "left", "up"):
        motions.append(Motion(f"halting {way}", drift=ways[way] * 0.035, halting=True))
    for way in ("right", "left"):
        motions.append(Motion(f"zigzag {way}", drift=ways[way] * 0.035, sway=0.1j, period=12.0))
    return tuple(motions)


MOTIONS = _motions()
"""51 motions, one for each class of HMDB51."""


def render(
    motion: Motion, seed: tuple[int, ...], frames: int, height: int, width: int
) -> tuple[Frames, int]:
    """Render uint8 [frames, height, width, 3], and return it with the index of its anchor.

    All motions of one seed and size share the frame at the anchor, bit for bit.
    """
    random = np.random.default_rng(seed)
    anchor = int(random.integers(frames))
    turn, phase = random.uniform(0, 2 * math.pi), random.uniform()
    offsets = random.uniform(0, _EDGE, (64, 2)) @ np.array([1, 1j])
    texture = _textures()[random.integers(_TEXTURES)]
    slope = random.uniform(25, 55, 3) * random.choice([-1, 1], 3)
    ramp = random.uniform(105, 150, 3) + slope * np.linspace(-4, 4, 256)[:, None]
    palette = np.clip(ramp, 0, 255).astype(np.uint8)
    pace = random.uniform(0.85, 1.15)
    shifts, turns, zooms = motion.pose(np.arange(-anchor, frames - anchor, dtype=np.float64) * pace)
    across = np.arange(width) - (width - 1) / 2
    down = np.arange(height)[:, None] - (height - 1) / 2
    view = ((across + 1j * down) / height * np.exp(1j * turn)).astype(np.complex64)
    shifts = shifts * np.exp(1j * turn)
    output = np.empty((frames, height, width, 3), np.uint8)
    for index in range(frames):
        # The texture moves right when the window moves left, and grows when the window shrinks.
        looking = view * np.complex64(np.exp(-1j * turns[index])) - np.complex64(shifts[index])
        seen = _octaves(texture, looking, phase - zooms[index], offsets)
        np.take(palette, seen, axis=0, out=output[index], mode="clip")
    return output, anchor


def _octaves(
    texture: npt.NDArray[np.float32],
    where: npt.NDArray[np.complex64],
    octave: float,
    offsets: npt.NDArray[np.complex128],
) -> npt.NDArray[np.intp]:
    """Sum the visible octaves, weighted to fade in and out; -4 to 4 deviations become 0 to 255."""
    seen = np.zeros(where.shape, np.float32)
    power = 0.0
    for layer in range(math.ceil(_FINEST - octave), math.floor(_COARSEST - octave) + 1):
        level = layer + octave
        weight = math.cos(level / (_COARSEST - _FINEST) * math.pi) ** 2
        place = where * np.float32(_TEXELS * 2**level)
        place += np.complex64(offsets[layer % len(offsets)] + _FAR)
        column = place.real.astype(np.int32) & (_EDGE - 1)
        row = place.imag.astype(np.int32) & (_EDGE - 1)
        seen += np.float32(weight) * texture.take(row * _EDGE + column)
        power += weight * weight
    seen *= np.float32(32 / math.sqrt(power))
    seen += 127.5
    return seen.astype(np.intp)


@functools.cache
def _textures() -> tuple[npt.NDArray[np.float32], ...]:
    """Return isotropic periodic noise: float32 [edge, edge], mean 0, standard deviation 1."""
    random = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(_EDGE), np.fft.fftfreq(_EDGE)))
    keep = np.exp(-((frequency * _FEATURE) ** 2)) - np.exp(-((frequency * _FEATURE * 4) ** 2))
    textures = []
    for _ in range(_TEXTURES):
        noise = np.fft.fft2(random.standard_normal((_EDGE, _EDGE)))
        plane = np.fft.ifft2(noise * keep).real
        textures.append((plane / plane.std()).astype(np.float32))
    return tuple(textures)
