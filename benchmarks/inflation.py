"""Measure what inflation from images is worth for motion, and what its padding changes.

    python benchmarks/inflation.py curves VIDEOS OUT --kinetics rgb_scratch.safetensors
    python benchmarks/inflation.py padding VIDEOS rgb_scratch.safetensors

`curves` needs a GPU, and takes minutes on one. ImageNet's weights are not used: the stand-in is a
network of images that is trained first, to tell the videos of a folder apart by single frames. Then
the same network learns the direction in which frames move, from the inflated images (both
methods), from Kinetics and from random weights, all else equal; the frames of its test are of other
videos. OUT gets curves.json and curves.png.

`padding` runs on a CPU: by how much the features of frames change if a network of images with
torchvision's padding is given I3D's own. Its weights are a checkpoint of I3D, summed over time.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from i3dzoo.checkpoints.checkpoint import read_checkpoint
from i3dzoo.checkpoints.inflation import deflate_tensors, inflate_tensors
from i3dzoo.network.architecture import HEAD, Variant
from i3dzoo.network.i3d import I3D
from i3dzoo.video.decode import probe, read

DIRECTIONS = 8
EDGE = 256  # short side of a texture
IMAGE_FRAMES = 9  # the shortest clip


def textures(folder: Path, each: int) -> list[list[Tensor]]:
    """Return frames of every video in a folder: per video, float [3, H, W] in [-1, 1]."""
    videos = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".mp4", ".avi", ".webm", ".mkv"):
            continue
        info = probe(path)
        chosen = np.linspace(0, info.frames - 1, each).astype(int)
        frames = torch.from_numpy(read(info, chosen).frames).permute(0, 3, 1, 2).float()
        scale = EDGE / min(frames.shape[2:])
        size = [math.ceil(n * scale) for n in frames.shape[2:]]
        videos.append(list(F.interpolate(frames, size, mode="bilinear") / 127.5 - 1))
    return videos


def crop(frame: Tensor, y: int, x: int, size: int) -> Tensor:
    """Return a square of a frame."""
    return frame[:, y : y + size, x : x + size]


class Batches:
    """Seeded batches of random squares, still or moving, of the frames of some videos."""

    def __init__(self, videos: list[list[Tensor]], given: argparse.Namespace, seed: int) -> None:
        self.videos, self.size, self.frames = videos, given.size, given.frames
        self.batch, self.device = given.batch, given.device
        self.random = np.random.default_rng(seed)

    def images(self) -> tuple[Tensor, Tensor]:
        """Return squares as still clips, and the numbers of their videos."""
        squares, classes = [], []
        for _ in range(self.batch):
            number = int(self.random.integers(len(self.videos)))
            frame = self._frame(number)
            y, x = (int(self.random.integers(n - self.size + 1)) for n in frame.shape[1:])
            square = crop(frame, y, x, self.size)
            squares.append(square.flip(2) if self.random.random() < 0.5 else square)
            classes.append(number)
        clip = torch.stack(squares)[:, :, None].expand(-1, -1, IMAGE_FRAMES, -1, -1)
        return clip.contiguous(), torch.tensor(classes, device=self.device)

    def motions(self) -> tuple[Tensor, Tensor]:
        """Return clips of squares that move by 1 to 3 pixels a frame, and their directions."""
        clips, classes = [], []
        for _ in range(self.batch):
            direction = int(self.random.integers(DIRECTIONS))
            angle, speed = 2 * math.pi * direction / DIRECTIONS, self.random.uniform(1, 3)
            frame = self._frame(int(self.random.integers(len(self.videos))))
            starts = []
            for room, velocity in zip(
                frame.shape[1:], (math.sin(angle), math.cos(angle)), strict=True
            ):
                way = velocity * speed * (self.frames - 1)
                low, high = max(0, -way), room - self.size - max(0, way)
                starts.append((self.random.uniform(low, high), velocity * speed))
            moved = [
                crop(frame, *(int(start + t * step) for start, step in starts), self.size)
                for t in range(self.frames)
            ]
            clips.append(torch.stack(moved, 1))
            classes.append(direction)
        return torch.stack(clips), torch.tensor(classes, device=self.device)

    def _frame(self, number: int) -> Tensor:
        frames = self.videos[number]
        return frames[int(self.random.integers(len(frames)))]


def train(
    model: I3D, batches: Iterator[tuple[Tensor, Tensor]], steps: int, lr: float
) -> Iterator[tuple[int, float]]:
    """Train with SGD and a cosine schedule; yield the number and the loss of each step."""
    optimiser = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, steps, pct_start=0.1)
    for step in range(1, steps + 1):
        clips, classes = next(batches)
        with torch.autocast(clips.device.type, torch.bfloat16):
            loss = F.cross_entropy(model.train()(clips).float(), classes)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        yield step, float(loss.detach())


def accuracy(model: I3D, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Return the share of clips whose class is right."""
    with torch.inference_mode(), torch.autocast(batches[0][0].device.type, torch.bfloat16):
        right = [(model.eval()(clips).argmax(1) == classes).float() for clips, classes in batches]
    return float(torch.cat(right).mean())


def forever(make: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches without end."""
    while True:
        yield make()


def image_network(videos: list[list[Tensor]], given: argparse.Namespace) -> dict[str, Tensor]:
    """Train a network of images: I3D whose kernels are zero except for the middle frame."""
    model = fresh(len(videos), given)
    for weight in model.parameters():
        if weight.ndim == 5 and weight.shape[2] > 1:
            mask = torch.zeros_like(weight)
            mask[:, :, weight.shape[2] // 2] = 1
            with torch.no_grad():
                weight *= mask * weight.shape[2] ** 0.5
            weight.register_hook(lambda gradient, mask=mask: gradient * mask)
    batches = Batches(videos, given, seed=1)
    for step, loss in train(model, forever(batches.images), given.image_steps, given.lr):
        if step % 50 == 0 or step == given.image_steps:
            print(f"images, step {step}: loss {loss:.3f}", flush=True)
    test = [Batches(videos, given, seed=2).images() for _ in range(4)]
    print(f"images: {100 * accuracy(model, test):.1f} % of squares", flush=True)
    state = {name: tensor.float().cpu().numpy() for name, tensor in model.state_dict().items()}
    return {name: torch.from_numpy(array) for name, array in deflate_tensors(state).items()}


def fresh(classes: int, given: argparse.Namespace) -> I3D:
    """Return a network of random weights, the same in every call."""
    torch.manual_seed(given.seed)
    network = I3D(classes, dropout=0.0).to(given.device)
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload] # torch's types lack 3d


def trunk(model: I3D, tensors: dict[str, Any]) -> I3D:
    """Load all tensors but the head into a network."""
    own = {n: torch.tensor(np.asarray(a)) for n, a in tensors.items() if not n.startswith(HEAD)}
    wrong = model.load_state_dict(own, strict=False)
    assert not wrong.unexpected_keys, wrong  # noqa: S101 - the names are canonical
    return model


def curves(given: argparse.Namespace) -> None:
    """Train the network of images, then one network of clips from each start."""
    started = time.time()
    videos = [[f.to(given.device) for f in video] for video in textures(given.videos, given.each)]
    seen, unseen = videos[0::2], videos[1::2]
    print(f"{len(seen)} videos to train on, {len(unseen)} to test on, {given.device}", flush=True)
    images = {name: tensor.numpy() for name, tensor in image_network(seen, given).items()}
    starts: dict[str, Any] = {
        "images, average": lambda model: trunk(model, dict(inflate_tensors(images, "average"))),
        "images, center": lambda model: trunk(model, dict(inflate_tensors(images, "center"))),
        "Kinetics-400": lambda model: trunk(model, dict(read_checkpoint(given.kinetics).tensors)),
        "random weights": lambda model: model,
    }
    batches = Batches(unseen, given, seed=3)
    test = [batches.motions() for _ in range(given.test_batches)]
    results: dict[str, Any] = {}
    for start, load in starts.items():
        model = load(fresh(DIRECTIONS, given))
        points = [(0, accuracy(model, test))]
        motions = forever(Batches(seen, given, seed=4).motions)
        for step, loss in train(model, motions, given.steps, given.lr):
            if step % given.every == 0 or step == given.steps:
                points.append((step, accuracy(model, test)))
                print(
                    f"{start}, step {step}: loss {loss:.3f}, {100 * points[-1][1]:.1f} %",
                    flush=True,
                )
        results[start] = points
    device = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    settings = {key: str(value) for key, value in vars(given).items() if key != "run"}
    facts = {"device": device, "torch": torch.__version__, "seconds": round(time.time() - started)}
    given.out.mkdir(parents=True, exist_ok=True)
    document = {**facts, "settings": settings, "top1": results}
    (given.out / "curves.json").write_text(json.dumps(document, indent=1))
    draw(results, device, given.out / "curves.png")


def draw(results: dict[str, Any], device: str, picture: Path) -> None:
    """Plot the curves, if matplotlib is installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("curves.png: matplotlib is not installed", flush=True)
        return
    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="tight")
    for start, points in results.items():
        axes.plot([step for step, _ in points], [100 * top1 for _, top1 in points], label=start)
    axes.axhline(100 / DIRECTIONS, color="grey", linestyle=":", label="chance")
    axes.set_xlabel(f"step ({device})")
    axes.set_ylabel("top-1 on other videos, %")
    axes.legend()
    figure.savefig(picture, dpi=150)


def padding(given: argparse.Namespace) -> None:
    """Print how features of frames differ between torchvision's padding and I3D's."""
    frames = [frame for video in textures(given.videos, given.each) for frame in video]
    images = deflate_tensors(read_checkpoint(given.weights).tensors)
    tensors = dict(inflate_tensors(images, "center"))  # every step is that of the image
    print(f"{len(frames)} frames of {given.videos}, weights of {given.weights} summed over time")
    for size in (224, 225):
        rows = {}
        for kind in ("ceil", "same"):
            model = trunk(I3D(0, variant=Variant(padding=kind, pooling="global")), tensors).eval()
            with torch.inference_mode():
                rows[kind] = torch.cat(
                    [
                        model.features(middle(frame, size)[None, :, None].expand(-1, -1, 9, -1, -1))
                        for frame in frames
                    ]
                )
        error = (rows["same"] - rows["ceil"]).norm(dim=1) / rows["ceil"].norm(dim=1)
        cosine = F.cosine_similarity(rows["same"], rows["ceil"])
        print(
            f"{size}x{size}: features differ by {100 * error.median():.1f} % (median) and "
            f"{100 * error.max():.1f} % (largest) of their norm; smallest cosine {cosine.min():.4f}"
        )


def middle(frame: Tensor, size: int) -> Tensor:
    """Return the middle square of a frame."""
    return crop(frame, *((n - size) // 2 for n in frame.shape[1:]), size)


def main() -> None:
    """Measure one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    steps = parser.add_subparsers(required=True)
    step = steps.add_parser("curves")
    step.set_defaults(run=curves)
    step.add_argument("videos", type=Path)
    step.add_argument("out", type=Path)
    step.add_argument("--kinetics", type=Path, required=True)
    step.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name, value in (("steps", 800), ("image-steps", 600), ("every", 40), ("batch", 32),
                        ("frames", 16), ("size", 112), ("test-batches", 16), ("each", 24),
                        ("seed", 0)):  # fmt: skip
        step.add_argument(f"--{name}", type=int, default=value)
    step.add_argument("--lr", type=float, default=0.02)
    step = steps.add_parser("padding")
    step.set_defaults(run=padding)
    step.add_argument("videos", type=Path)
    step.add_argument("weights", type=Path)
    step.add_argument("--each", type=int, default=3)
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
