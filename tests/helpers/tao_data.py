"""Frames and flow of three motions in the layout of NVIDIA TAO."""

from pathlib import Path

import numpy as np
from PIL import Image

from i3dzoo.video.motions import MOTIONS, render

CLASSES = {"fall_floor": "still", "cartwheel": "turning clockwise fast", "run": "growing fast"}


def write_motions(root: Path) -> None:
    """Write frames and flow of each class into train/ and test/."""
    motions = {motion.name: motion for motion in MOTIONS}
    random = np.random.default_rng(0)
    for role, count, seed in (("train", 4, 1), ("test", 2, 2)):
        for label, name in CLASSES.items():
            for number in range(count):
                frames, _ = render(motions[name], (seed, number), 12, 64, 80)
                folder = root / role / label / f"clip{number}"
                for kind in ("rgb", "u", "v"):
                    (folder / kind).mkdir(parents=True)
                for index, frame in enumerate(frames, 1):
                    Image.fromarray(frame).save(folder / "rgb" / f"{index:06d}.png")
                for index in range(1, 12):
                    for kind in ("u", "v"):
                        flow = random.integers(100, 156, (64, 80), np.uint8)
                        Image.fromarray(flow).save(folder / kind / f"{index:06d}.png")
