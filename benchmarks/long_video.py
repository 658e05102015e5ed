"""Memory of `i3dzoo features` over the length of a video, or over the number of videos.

    python benchmarks/long_video.py --hours 2                     # small frames, a small clip
    python benchmarks/long_video.py --hours 0.05 --model rgb_imagenet
    python benchmarks/long_video.py --files 10000                 # of one second each

Generated videos of 25 fps are read in windows of 16 frames of 32x32 pixels, or of the model's own.
Files of features are written for a list. The memory is that of the process, sampled at every tenth
of the windows. `--plain` replaces the network by a mean, which shows the memory of the pipeline
sooner.
"""

import argparse
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

import i3dzoo
from i3dzoo.checkpoints.metadata import Input, Metadata, Source
from i3dzoo.engines.torch import TorchEngine
from i3dzoo.features import Extractor, FeatureSettings, extract_to_folder, extract_video
from i3dzoo.network.architecture import POOLED
from i3dzoo.pretrained import InceptionI3d

FPS = 25


def write_video(path: Path, hours: float, height: int = 48, width: int = 64) -> int:
    """Write moving squares as H.264; return the number of frames."""
    squares = np.random.default_rng(0).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), "u1")
    texture = squares.repeat(8, axis=0).repeat(8, axis=1)
    count = round(hours * 3600 * FPS)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(count):
            shift = number % 8
            image = np.ascontiguousarray(texture[shift : shift + height, shift : shift + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return count


def small_network() -> InceptionI3d:
    """A network of random weights for clips of 16 frames of 32x32 pixels."""
    torch.manual_seed(0)
    spec = Input(resize=36, crop=32, frames=16)
    source = Source("canonical", "0" * 64)
    network = InceptionI3d(400).eval()
    network.metadata = Metadata("rgb", 400, None, spec, source)
    return network


def megabytes() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


class Watched(TorchEngine):
    """An engine that prints the memory at every tenth of the windows."""

    def __init__(self, network: InceptionI3d, windows: int, plain: bool) -> None:
        super().__init__(network)
        self.windows, self.plain = windows, plain
        self.done = self.shown = 0
        self.begin = time.perf_counter()

    def features(self, x: Tensor, endpoint: str = POOLED) -> Tensor:
        """Return the features of clips, and print the memory from time to time."""
        output = x.mean((2, 3, 4)) if self.plain else super().features(x, endpoint)
        self.done += len(x)
        if self.done >= self.shown:
            seconds = time.perf_counter() - self.begin
            print(f"| {self.done:,} | {megabytes():.0f} | {seconds:.0f} |", flush=True)
            self.shown += max(self.windows // 10, 1)
        return output


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=2)
    parser.add_argument("--files", type=int, help="a list of so many videos")
    parser.add_argument("--model")
    parser.add_argument("--plain", action="store_true", help="a mean instead of the network")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network = i3dzoo.load(arguments.model) if arguments.model else small_network()
    network = network.to(memory_format=torch.channels_last_3d)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "long.mp4"
        count = write_video(path, 1 / 3600 if arguments.files else arguments.hours)
        windows = -(-count // network.metadata.input.frames) * (arguments.files or 1)
        print(f"{count:,} frames, {windows:,} windows\n\n| windows | MB | s |\n|---|---|---|")
        engine = Watched(network, windows, arguments.plain)
        if arguments.files:
            extract_list(engine, path, arguments.files, folder)
        else:
            features = extract_video(engine, path)
            print(f"\nfeatures {list(features.vectors.shape)}")
        print(f"\n{megabytes():.0f} MB at the end")


def extract_list(engine: Watched, path: Path, count: int, folder: Path) -> None:
    """Write the features of a list of videos that are links to one file."""
    names = {}
    for number in range(count):
        video = folder / f"{number}.mp4"
        video.symlink_to(path)
        names[str(video)] = str(number)
    extractor = Extractor(engine, FeatureSettings())
    models = {"rgb": {"sha256": "0"}}
    results = extract_to_folder(extractor, names, folder / "features", models=models)
    done = sum(result.features is not None for result in results)
    print(f"\n{done:,} videos extracted")


if __name__ == "__main__":
    main()
