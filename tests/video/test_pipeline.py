"""The pipeline: what the network gets of many videos, and what is yielded for each."""

import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from helpers.video_files import REAL, numbered, write_video
from torch import Tensor

from i3dzoo.checkpoints.metadata import Input
from i3dzoo.errors import MissingFileError, OptionError, ShapeError, VideoError
from i3dzoo.video import (
    BadVideo,
    VideoInfo,
    decode_worker,
    preprocess,
    probe,
    read,
    resample,
    sampling,
)
from i3dzoo.video._nvdec import NvdecError
from i3dzoo.video._nvdec import missing as nvdec_missing
from i3dzoo.video._packet_table import agrees, expect_container
from i3dzoo.video.decode_worker import Colours
from i3dzoo.video.pipeline import PipelineOptions, Planned, run_plans
from i3dzoo.video.pipeline.colours import yuv_to_rgb
from i3dzoo.video.pipeline.decoders import Decoders
from i3dzoo.video.pipeline.outputs import Fetched
from i3dzoo.video.plan import CROPS, ZEROS, Crop, Plan, Resize, resize_of
from i3dzoo.video.sampling import Clip

SPEC = Input(resize=36, crop=32, frames=16, fps=None)


def noise(path: Path, frames: int, height: int = 48, width: int = 64, seed: int = 0) -> Path:
    """Write a video of noise as MPEG-4, whose frames are yuv420p."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (frames, height, width, 3), np.uint8)
    return write_video(path, pixels, codec="mpeg4", pixels="yuv420p")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three videos of noise: of 40 frames, of 9, and of 33 in another size."""
    folder = tmp_path_factory.mktemp("videos")
    return [
        noise(folder / "a.mp4", 40),
        noise(folder / "b.mp4", 9, seed=1),
        noise(folder / "c.avi", 33, 40, 56, seed=2),
    ]


def windows(info: VideoInfo, stride: int = 4) -> Plan:
    """Return overlapping windows, or a looped one of a short video."""
    samples = resample(info, None)
    short = len(samples) <= SPEC.frames
    clips = sampling.clips(samples, 16) if short else sampling.windows(samples, 16, stride)
    return Plan(info, tuple(clips), SPEC, resize_of(SPEC))


def identity(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """A network that returns its input."""
    yield from batches


def expected(video: Path) -> list[Any]:
    """Return the windows of a video, from all of its frames at once."""
    frames = read(video).frames
    return [preprocess(frames[clip.indices], SPEC).numpy() for clip in windows(probe(video)).clips]


def run(videos: Iterable[Path], plan: Callable[[VideoInfo], Plan] = windows, **options: Any) -> Any:
    """Run the identity on videos."""
    return list(run_plans(identity, videos, plan, PipelineOptions(**options)))


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 4},
        {"workers": 1},
        {"batch_size": 5, "planar": True, "ordered": False},
        {"batch_size": 4, "planar": True, "processes": True, "workers": 2},
    ],
    ids=["threads", "one thread", "planes, unordered", "processes"],
)
def test_windows_of_several_videos(videos: list[Path], options: dict[str, Any]) -> None:
    """However they are decoded, the network gets the same pixels, to the bit."""
    results = run(videos, **options)
    names = [result.video for result in results]
    assert names == list(map(str, videos)) if options.get("ordered", True) else sorted(names)
    for result in results:
        assert isinstance(result, Planned)
        for output, wanted in zip(result.outputs, expected(Path(result.video)), strict=True):
            np.testing.assert_array_equal(output[0], wanted)


def test_batches_are_shared(videos: list[Path]) -> None:
    """Windows of different videos fill a batch; long clips are fewer in a batch."""
    sizes = []

    def counted(batches: Iterable[Tensor]) -> Iterator[Tensor]:
        for batch in batches:
            sizes.append(len(batch))
            yield batch

    results = list(run_plans(counted, videos, windows, PipelineOptions(batch_size=4)))
    count = sum(len(result.outputs) for result in results if isinstance(result, Planned))
    assert sizes == [4] * (count // 4) + [count % 4] * (count % 4 > 0)
    assert count == 7 + 1 + 6


def test_outputs_are_in_one_array(videos: list[Path]) -> None:
    """Small arrays between the large ones would make a process grow with the length of a video."""
    (result,) = run(videos[:1], batch_size=2)
    assert len({id(output.base) for output in result.outputs}) == 1


def test_lengths_are_not_mixed(videos: list[Path]) -> None:
    """Clips of whole videos, of different lengths, are in batches of their own."""

    def whole(info: VideoInfo) -> Plan:
        clip = sampling.whole(resample(info, None), 9, SPEC.crop)
        return Plan(info, (clip,), SPEC, resize_of(SPEC))

    results = run(videos, whole, batch_size=4)
    assert [result.outputs[0].shape[2] for result in results] == [40, 9, 33]
    wanted = preprocess(read(videos[2]).frames, SPEC)
    np.testing.assert_array_equal(results[2].outputs[0][0], wanted)


def test_frames_of_a_plan(videos: list[Path]) -> None:
    """Frames are repeated, taken backwards, and zeros; a clip can be of zeros only."""
    rows = [[5, 5, 3, ZEROS], [ZEROS] * 4, [39, 0, 20, ZEROS]]

    def plan(info: VideoInfo) -> Plan:
        clips = [Clip(np.array(row), 0, 0, None, None) for row in rows]
        return Plan(info, tuple(clips), SPEC, Resize("exact", (32, 40)))

    (result,) = run(videos[:1], plan)
    frames = read(videos[0]).frames
    spec = SPEC.replace(resize=None)
    for row, output in zip(rows, result.outputs, strict=True):
        for place, index in enumerate(row):
            if index == ZEROS:
                assert not output[0][:, place].any()
                continue
            frame = torch.from_numpy(frames[index]).permute(2, 0, 1)[None].float()
            resized = torch.nn.functional.interpolate(frame, (32, 40), mode="bilinear")
            values = resized[0, :, :, 4:36].numpy() / 255 * 2 - 1
            np.testing.assert_allclose(output[0][:, place], values, atol=1e-6)
    assert spec.crop == 32


def test_crops(tmp_path: Path) -> None:
    """Each crop is its square, mirrored where it says so; the x of flow is negated then."""
    flow = np.random.default_rng(0).integers(0, 256, (10, 40, 50, 2), np.uint8)
    np.save(tmp_path / "flow.npy", flow)
    spec = Input("xy", (0.5, 0.5), (0.5, 0.5), resize=None, crop=32, frames=10, fps=None)
    crops = (*CROPS[10], Crop("end"))

    def plan(info: VideoInfo) -> Plan:
        clip = sampling.whole(resample(info, None), 9, 32)
        return Plan(info, (clip,), spec, Resize(), crops)

    (result,) = run([tmp_path / "flow.npy"], plan, channels="xy", batch_size=3)
    values = flow.transpose(3, 0, 1, 2).astype(np.float32) / 255 * 2 - 1
    corners = [(0, 0), (0, 18), (4, 9), (8, 0), (8, 18), (0, 18), (0, 0), (4, 9), (8, 18), (8, 0)]
    for number, (top, left) in enumerate([*corners, (4, 18)]):
        square = values[..., top : top + 32, left : left + 32].copy()
        if 5 <= number < 10:
            square = square[..., ::-1].copy()
            square[0] *= -1
        np.testing.assert_allclose(result.outputs[0][number], square, atol=1e-6)


def test_floats_of_the_networks_size_are_taken_as_they_are(tmp_path: Path) -> None:
    """An array of the network's own input is not resized."""
    values = np.random.default_rng(0).random((16, 32, 32, 3), np.float32) * 2 - 1
    np.save(tmp_path / "x.npy", values)
    (result,) = run([tmp_path / "x.npy"])
    np.testing.assert_allclose(result.outputs[0][0], values.transpose(3, 0, 1, 2), atol=1e-6)


def test_frames_that_are_larger_than_a_slot(
    videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Very large frames, here larger than a smaller slot, do not go through shared memory."""
    monkeypatch.setattr("i3dzoo.video.pipeline.decoders.SLOT_BYTES", 4000)
    (result,) = run(videos[:1])
    np.testing.assert_array_equal(result.outputs[0][0], expected(videos[0])[0])


class TestFailures:
    def test_bad_videos_do_not_stop_the_others(self, videos: list[Path], tmp_path: Path) -> None:
        """Videos that are missing, no videos, or not to be planned are reported in their places."""
        text = tmp_path / "text.mp4"
        text.write_text("no video")

        def plan(info: VideoInfo) -> Plan:
            if info.path == videos[1]:
                raise VideoError("this one is not wanted")
            spec = SPEC.replace(crop=48) if info.path == videos[2] else SPEC
            return Plan(info, windows(info).clips, spec, Resize())

        gone = tmp_path / "gone.mp4"
        results = run([gone, text, *videos], plan, batch_size=4)
        assert [result.file for result in results if isinstance(result, BadVideo)] == [
            str(gone),
            str(text),
            str(videos[1]),
            str(videos[2]),
        ]
        assert isinstance(results[0].error, MissingFileError)
        assert "not wanted" in results[3].reason
        assert isinstance(results[4].error, ShapeError)
        assert "c.avi: frames of 56x40 pixels" in results[4].reason
        assert len(results[2].outputs) == 7

    def test_nothing_to_do(self, videos: list[Path]) -> None:
        """No video gives no result, and a video without clips no outputs."""
        assert run([]) == []
        (result,) = run(videos[:1], lambda info: Plan(info, (), SPEC, Resize()))
        assert result.outputs == []

    @pytest.mark.parametrize("processes", [False, True])
    def test_damaged_file(self, videos: list[Path], tmp_path: Path, processes: bool) -> None:
        """A file that does not decode to what its packets promise is planned again as it is."""
        data = bytearray(videos[0].read_bytes())
        begin = data.index(b"mdat") + len(data) // 2
        data[begin : begin + 3000] = bytes(3000)
        damaged = tmp_path / "damaged.mp4"
        damaged.write_bytes(data)
        expectation = expect_container(damaged)
        info = probe(damaged)
        assert expectation is not None
        assert info.frames < expectation.frames == 40
        (result, other) = run([damaged, videos[1]], processes=processes)
        assert result.plan.info.frames == info.frames
        assert result.plan.info.warnings == info.warnings
        for output, wanted in zip(result.outputs, expected(damaged), strict=True):
            np.testing.assert_array_equal(output[0], wanted)
        assert isinstance(other, Planned)

    def test_crash_of_a_decoder(self, videos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        """A decoder that crashes fails its video, and another one takes the next."""
        idle = Decoders.idle

        def killed(self: Decoders) -> Any:
            decoder = idle(self)
            if decoder is not None and decoder.process is not None and not started:
                started.append(decoder)
                os.kill(decoder.process.pid, signal.SIGKILL)
            return decoder

        started: list[Any] = []
        monkeypatch.setattr(Decoders, "idle", killed)
        bad, good = run(videos[:2], processes=True, workers=1)
        assert isinstance(bad, BadVideo)
        assert f"{videos[0]}: the decoder crashed (signal 9)" in bad.reason
        assert isinstance(good, Planned)

    def test_error_of_the_network(self, videos: list[Path]) -> None:
        """The videos of a batch that the network refuses fail, and the others do not."""

        def picky(batches: Iterable[Tensor]) -> Iterator[Tensor]:
            for batch in batches:
                if batch.shape[2] == 9:
                    raise ShapeError("nine frames are too few")
                yield batch

        def plan(info: VideoInfo) -> Plan:
            clip = sampling.whole(resample(info, None), 9, SPEC.crop)
            return Plan(info, (clip,), SPEC, resize_of(SPEC))

        first, second, third = run_plans(picky, videos, plan, PipelineOptions(workers=1))
        assert isinstance(first, Planned)
        assert isinstance(second, BadVideo)
        assert second.reason == "nine frames are too few"
        assert isinstance(third, Planned)


def test_outputs_that_come_late(videos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """An output that is still on its way from a GPU is taken when the next batch was started."""
    monkeypatch.setattr(Fetched, "ready", False)
    for result in run([*videos, videos[0].with_name("gone.mp4")], batch_size=3)[:3]:
        for output, wanted in zip(result.outputs, expected(Path(result.video)), strict=True):
            np.testing.assert_array_equal(output[0], wanted)


def test_few_videos_are_opened_ahead(videos: list[Path]) -> None:
    """A long list is taken as it is needed, also while the first video takes long."""
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield videos[1]

    results = run_plans(identity, endless(), windows, PipelineOptions(batch_size=2, workers=2))
    for _ in range(30):
        next(results)
    results.close()  # type: ignore[attr-defined] # a generator
    assert taken <= 30 + 4 * 2 + 2 * 2 + 1


@pytest.mark.parametrize("colours", ["bt601", "bt601-full", "bt709", "bt709-full"])
def test_colours_are_those_of_swscale(colours: Colours) -> None:
    """The conversion on the device gives what FFmpeg's gives, here on random planes."""
    planes = np.random.default_rng(0).integers(0, 256, (2, 72, 62), np.uint8)
    for plane in planes:
        frame = av.VideoFrame.from_ndarray(plane, format="yuv420p")
        frame.colorspace = 1 if "709" in colours else 5
        frame.color_range = 2 if "full" in colours else 1
        wanted = frame.to_ndarray(format="rgb24")
        found = yuv_to_rgb(torch.from_numpy(plane)[None], colours)[0].numpy()
        difference = np.abs(found.astype(int) - wanted.astype(int)).max()
        assert difference <= (0 if os.uname().machine == "x86_64" else 3)


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL)
def test_packets_tell_what_is_decoded(test_data: Path, name: str) -> None:
    """The packets of real clips describe them as decoding does, or tell nothing.

    HMDB51's have B-frames in an AVI, where there is not a frame for each packet.
    """
    path = test_data / "clips" / name
    expectation = expect_container(path)
    if name.endswith(".gif") or "_nm_np1_" in name or "_cm_np2_" in name:
        assert expectation is None
    else:
        assert expectation is not None
        assert agrees(expectation, probe(path))


def test_nvdec_is_refused_without_a_gpu() -> None:
    """It is never replaced silently."""
    with pytest.raises(OptionError, match="nvdec needs an NVIDIA GPU: the device is cpu"):
        PipelineOptions(decoder="nvdec")


def test_some_decoders_are_nvdec(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come first, beside those of the CPU; none is started for a video that is not there."""
    monkeypatch.setattr("i3dzoo.video.pipeline.options.nvdec_missing", lambda: None)
    device = torch.device("cuda")
    options = PipelineOptions(device=device, decoder="nvdec", workers=2, nvdec_workers=3)
    assert (options.decoders(None)[0], options.nvdec(None)) == (5, 3)
    assert (options.decoders(1)[0], options.nvdec(1)) == (1, 1)
    assert PipelineOptions(device=device, workers=2).nvdec(None) == 0
    decoders = Decoders(3, processes=False, threads=1, pin=False, nvdec=2, gpu=1)
    assert [decoders.idle().gpu for _ in range(3)] == [1, 1, None]  # type: ignore[union-attr]
    decoders.close()


def as_nvdec(monkeypatch: pytest.MonkeyPatch, change: Callable[..., Any] | None = None) -> None:
    """Stand in for NVDEC: the CPU decodes, and frames are NV12."""
    scan = decode_worker.scan_container

    def scanned(path: Path, threads: int, gpu: int | None = None) -> Generator[Any, None, Any]:
        frames, index = scan(path, threads), 0
        while True:
            try:
                frame = next(frames)
            except StopIteration as end:
                return end.value
            if gpu is not None:
                if change is not None:
                    change(index)
                frame = frame.reformat(format="nv12")
            yield frame
            index += 1

    monkeypatch.setattr(decode_worker, "scan_container", scanned)
    monkeypatch.setattr("i3dzoo.video.pipeline.options.PipelineOptions.nvdec", lambda *_: 2)


@pytest.mark.parametrize("first_bad", [None, 0, 2, 36])
def test_nvdec_equals_the_cpu(
    videos: list[Path], monkeypatch: pytest.MonkeyPatch, first_bad: int | None
) -> None:
    """Its NV12 is the same to the bit, and the CPU decodes a file that it gives up anywhere."""

    def change(index: int) -> None:
        if index == first_bad:
            raise NvdecError("out of memory")

    as_nvdec(monkeypatch, change)
    monkeypatch.setattr("i3dzoo.video.pipeline.decoders.SLOT_BYTES", 48 * 64 * 3)
    for result in run(videos, planar=True, batch_size=4):
        assert isinstance(result, Planned), result
        for output, wanted in zip(result.outputs, expected(Path(result.video)), strict=True):
            np.testing.assert_array_equal(output[0], wanted)


def test_raw_nv12(tmp_path: Path) -> None:
    """A file of NV12 frames, which the CPU decodes, has the pixels that it has elsewhere."""
    path = tmp_path / "raw.nut"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "nv12"
        stream.codec_context.colorspace = 5
        for pixels in numbered(20):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="nv12")
            frame.colorspace = 5
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (result,) = run([path], planar=True)
    assert isinstance(result, Planned), result
    for output, wanted in zip(result.outputs, expected(path), strict=True):
        np.testing.assert_array_equal(output[0], wanted)


def test_nvdec_cannot_be_opened(videos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a driver, with another codec, out of sessions: the CPU decodes."""
    monkeypatch.setattr("i3dzoo.video.pipeline.options.PipelineOptions.nvdec", lambda *_: 2)
    for result in run(videos, planar=True):
        assert isinstance(result, Planned), result
        for output, wanted in zip(result.outputs, expected(Path(result.video)), strict=True):
            np.testing.assert_array_equal(output[0], wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("name", REAL)
def test_nvdec_of_a_gpu_equals_the_cpu(test_data: Path, name: str) -> None:
    """Windows of real clips are equal to the bit; H.264 is decoded by NVDEC, the rest is not."""
    if why := nvdec_missing():
        pytest.skip(why)
    path, device = test_data / "clips" / name, torch.device("cuda")
    nvdec = PipelineOptions(device=device, decoder="nvdec", workers=0, nvdec_workers=1)
    if path.suffix == ".mp4":
        frames = list(decode_worker.scan_container(path, 1, gpu=0))
        assert {frame.format.name for frame in frames} == {"nv12"}
        assert len(frames) == REAL[name][0]
    else:
        with pytest.raises(NvdecError):
            next(decode_worker.scan_container(path, 1, gpu=0))
    outputs = []
    for options in (PipelineOptions(device=device), nvdec):
        (result,) = run_plans(identity, [path], partial(windows, stride=16), options)
        assert isinstance(result, Planned), result
        outputs.append(np.stack(result.outputs))
    np.testing.assert_array_equal(*outputs)
