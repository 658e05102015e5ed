"""The choice of `--engine auto`: its rules, the measurement that is kept, and failures."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.progress import RecordedProgress
from torch import Tensor

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.engines import auto, choose, measured
from i3dzoo.engines.base import load_engine
from i3dzoo.engines.choose import GPU, OnCpu, choose_on_gpu, cpu_candidates
from i3dzoo.engines.fallback import FallbackEngine
from i3dzoo.engines.fused import FusedEngine
from i3dzoo.engines.measured import Measured, Setting
from i3dzoo.engines.torch import TorchEngine
from i3dzoo.errors import OptionError, ShapeError

H100 = GPU("NVIDIA H100 80GB HBM3", (9, 0))
A100 = GPU("NVIDIA A100-SXM4-80GB", (8, 0))
V100 = GPU("Tesla V100", (7, 0))
MI250 = GPU("AMD Instinct MI250X", (9, 0), nvidia=False)
CLIP = torch.rand(1, 3, 16, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(
    ("gpu", "triton", "precision", "engine", "reason"),
    [
        (H100, True, None, "fused", ""),
        (H100, True, "fp16", "fused", ""),
        (H100, True, "fp32", "torch", ""),
        (H100, True, "tf32", "torch", ""),
        (H100, True, "bf16", "fused", ""),
        (H100, False, None, "torch", "Triton is not installed; --precision fp16"),
        (A100, True, "fp16", "fused", "was not timed on NVIDIA A100-SXM4-80GB"),
        (GPU("B200", (10, 0)), True, None, "fused", "was not timed on B200"),
        (V100, True, None, "torch", "V100 has compute capability 7.0, expected 8.0 or more"),
        (MI250, True, None, "torch", "not a GPU of NVIDIA"),
    ],
)
def test_on_a_gpu(gpu: GPU, triton: bool, precision: Any, engine: str, reason: str) -> None:
    """Half precision runs in fused where it can; a remark has the reason, or that it is new."""
    name, remark = choose_on_gpu(gpu, triton, precision)
    assert name == engine
    assert reason in remark
    assert bool(remark) == bool(reason)


def test_candidates_on_a_cpu() -> None:
    """A package that is missing is not a candidate; in bf16, onnxruntime is none."""
    everything: set[OnCpu] = {"openvino", "onnxruntime", "torch"}
    assert cpu_candidates(everything, None) == ("openvino", "onnxruntime", "torch")
    assert cpu_candidates(everything - {"openvino"}, "fp32") == ("onnxruntime", "torch")
    assert cpu_candidates({"torch"}, None) == ("torch",)
    assert cpu_candidates(everything, "bf16") == ("openvino", "torch")
    assert cpu_candidates({"onnxruntime"}, "bf16") == ()


def test_measure() -> None:
    """The shortest times decide; an engine that is hopeless in the first round is out."""
    now, counts = [0.0], {"torch": 0, "openvino": 0, "onnxruntime": 0}
    seconds = {"torch": [1.0], "openvino": [0.5, 0.1], "onnxruntime": [0.3, 0.2]}

    def run(name: str) -> None:
        taken = seconds[name]
        now[0] += taken[min(counts[name], len(taken) - 1)]
        counts[name] += 1

    runs: Any = {name: lambda name=name: run(name) for name in seconds}
    times = measured.measure(
        {name: runs[name] for name in ("openvino", "onnxruntime")}, lambda: now[0]
    )
    assert list(times) == ["openvino", "onnxruntime"]
    assert list(times.values()) == pytest.approx([0.1, 0.2])
    assert 2 <= now[0] < 2.4
    counts.update(openvino=0, onnxruntime=0)
    assert list(measured.measure(runs, lambda: now[0])) == ["openvino", "onnxruntime", "torch"]
    assert counts["torch"] == 1 < counts["openvino"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; auto chooses, and measures for as short as it can."""
    monkeypatch.setenv("I3DZOO_CACHE", str(tmp_path))
    monkeypatch.delenv(choose.VARIABLE)
    monkeypatch.setattr(measured, "SECONDS", 0.0)
    return tmp_path


def test_measured_once(cache: Path, rgb_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first load measures; the next takes what was kept, and says so; results are the same."""
    expected = load_engine(rgb_file, "torch", "cpu").step_logits(CLIP)
    first, second = RecordedProgress(), RecordedProgress()
    engine = load_engine(rgb_file, device="cpu", progress=first)
    (file,) = (cache / "engines").iterdir()
    document = json.loads(file.read_text())
    assert set(document["seconds"]) == {"openvino", "onnxruntime", "torch"}
    assert document["setting"]["versions"].keys() >= {"torch", "openvino", "onnxruntime"}
    assert engine.name == next(iter(document["seconds"]))
    assert "measuring once" in first.messages[0]
    assert f"engine {engine.name}, the fastest for 9x32x32" in first.messages[1]

    # the kept result decides, whichever it is
    document["seconds"] = {"onnxruntime": 0.1, "openvino": 0.2, "torch": 0.3}
    file.write_text(json.dumps(document))
    monkeypatch.setattr(measured, "measure", None)
    kept = load_engine(rgb_file, device="cpu", progress=second)
    assert kept.name == "onnxruntime"
    times = "onnxruntime 0.10 s (openvino 0.20 s, torch 0.30 s)"
    assert second.messages == [f"engine onnxruntime, the fastest when it was measured: {times}"]
    for loaded in (engine, kept):
        torch.testing.assert_close(loaded.step_logits(CLIP), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("cache")
def test_engines_that_fail(rgb_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that cannot run here is skipped with a remark; a missing one without."""
    load_named = auto.load_named

    def load(checkpoint: Checkpoint, name: Any, *rest: Any) -> Any:
        if name == "openvino":
            raise RuntimeError("illegal instruction\nmore")
        return load_named(checkpoint, name, *rest)

    monkeypatch.setattr(auto, "load_named", load)
    messages = RecordedProgress()
    engine = load_engine(rgb_file, device="cpu", progress=messages)
    assert engine.name in ("onnxruntime", "torch")
    assert "engine openvino is skipped: illegal instruction" in messages.messages
    monkeypatch.setattr(choose, "is_installed", lambda *_: False)
    messages = RecordedProgress()
    assert load_engine(rgb_file, device="cpu", progress=messages).name == "torch"
    assert not messages.messages


def test_wiring_on_a_gpu(rgb: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is fused where it fits, and PyTorch elsewhere and after a failure, with a remark.

    PyTorch itself runs on the CPU here.
    """

    def load_fused(*_: Any) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(auto, "choose_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(auto, "is_installed", lambda *_: True)
    monkeypatch.setattr(FusedEngine, "from_checkpoint", load_fused)
    for gpu, precision, expected in (
        (V100, None, ["PyTorch runs the network instead of the engine fused: Tesla V100"]),
        (H100, "fp32", []),
        (H100, None, ["engine fused in fp16", "the engine fused failed (RuntimeError: no kernel"]),
    ):
        monkeypatch.setattr(auto, "current_gpu", lambda gpu=gpu: gpu)
        messages = RecordedProgress()
        engine = auto.load_auto(rgb, "cpu", precision, messages)
        assert (engine.name, engine.precision) == ("torch", "fp32")
        assert len(messages.messages) == len(expected)
        for message, start in zip(messages.messages, expected, strict=True):
            assert message.startswith(start)


@pytest.fixture
def setting() -> Setting:
    """The setting of a measurement."""
    return Setting(
        cpu="a CPU",
        threads=2,
        shape=(3, 64, 224, 224),
        padding="same",
        pooling="window",
        precision="fp32",
        engines=("onnxruntime", "torch"),
        versions={"torch": "2.4"},
    )


@pytest.mark.usefixtures("cache")
def test_what_is_kept(setting: Setting) -> None:
    """A measurement counts for its own setting; one that cannot be read does not count."""
    assert measured.kept(setting) is None
    path = measured.keep(Measured(setting=setting, seconds={"torch": 1.0, "onnxruntime": 2.0}))
    assert path is not None
    kept = measured.kept(setting)
    assert kept is not None
    assert kept.fastest == "torch"
    for change in ({"threads": 1}, {"versions": {"torch": "2.5"}}, {"precision": "bf16"}):
        assert measured.kept(setting.replace(**change)) is None
    for damage in (
        "{",
        '{"seconds": {}}',
        path.read_text().replace('"torch": 1.0', '"fused": 1.0'),
    ):
        path.write_text(damage)
        assert measured.kept(setting) is None


def test_a_cache_that_cannot_be_written(cache: Path, setting: Setting) -> None:
    """Without a cache, the measurement still counts for this run."""
    (cache / "engines").write_text("a file, not a folder")
    assert measured.keep(Measured(setting=setting, seconds={"torch": 1.0})) is None


def test_environment_variable(rgb_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I3DZOO_ENGINE replaces the choice of auto, and no other one."""
    monkeypatch.setenv(choose.VARIABLE, "onnxruntime")
    assert load_engine(rgb_file).name == "onnxruntime"
    assert load_engine(rgb_file, "torch").name == "torch"
    monkeypatch.setenv(choose.VARIABLE, "caffe")
    with pytest.raises(OptionError, match=r"I3DZOO_ENGINE: expected auto, torch,.*found 'caffe'"):
        load_engine(rgb_file)


class Failing(TorchEngine):
    """Stands for the engine fused: raises an error, if there is one, instead of running."""

    name = "fused"
    error: Exception | None = None

    def step_logits(self, x: Tensor) -> Tensor:
        """Fail, or run."""
        if self.error is not None:
            raise self.error
        return super().step_logits(x)


def test_fallback(rgb: Checkpoint) -> None:
    """If the kernels fail, at first or later, PyTorch runs the clip and all others."""
    loaded: list[TorchEngine] = []

    def load_torch() -> TorchEngine:
        loaded.append(TorchEngine.from_checkpoint(rgb))
        return loaded[-1]

    messages = RecordedProgress()
    fused = Failing.from_checkpoint(rgb)
    assert isinstance(fused, Failing)
    engine = FallbackEngine(lambda: fused, load_torch, messages.message)
    expected = engine.step_logits(CLIP)
    assert (engine.name, loaded) == ("fused", [])

    # PyTorch would fail as well
    for error in (ShapeError("short"), torch.OutOfMemoryError("16 GB")):
        fused.error = error
        with pytest.raises(type(error)):
            engine.step_logits(CLIP)
    assert not loaded

    fused.error = RuntimeError("PTX was compiled with an unsupported toolchain\nand more")
    batches: Iterator[Tensor] = engine.stream([CLIP, CLIP])
    assert all(torch.equal(steps, expected) for steps in batches)
    assert (engine.name, len(loaded)) == ("torch", 1)
    reason = "RuntimeError: PTX was compiled with an unsupported toolchain"
    assert messages.messages == [
        f"the engine fused failed ({reason}); PyTorch runs the network from here on"
    ]
    assert engine.features(CLIP, "Mixed_4f").shape == (1, 832)


def test_fallback_while_loading(rgb: Checkpoint) -> None:
    """If the plan cannot even be built, PyTorch runs from the beginning."""

    def load_fused() -> TorchEngine:
        raise ImportError("libcuda.so cannot be opened")

    messages = RecordedProgress()
    engine = FallbackEngine(load_fused, lambda: TorchEngine.from_checkpoint(rgb), messages.message)
    assert engine.name == "torch"
    assert "libcuda.so cannot be opened" in messages.messages[0]
