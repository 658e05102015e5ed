"""A training step as a CUDA graph computes what it computes without one."""

import pytest
import torch
from msgspec.structs import replace

from i3dzoo.pretrained import InceptionI3d
from i3dzoo.training.recipe import Recipe, load_recipe
from i3dzoo.training.streams import Streams
from i3dzoo.training.train_step import TrainStep, make_accelerator
from i3dzoo.video import Batch


class Labels:
    """What the train step needs of the clips."""

    classes = ("a", "b", "c")
    labels = (0, 1, 2)


def recipe(precision: str) -> Recipe:
    """Return a recipe for four clips at once."""
    base = load_recipe("tao")
    loop = replace(base.loop, precision=precision, channels_last=True, batch_size=4)
    return replace(base, loop=loop)


def batch(number: int, size: int = 4, device: str = "cpu") -> Batch:
    """Return a batch of noise."""
    generator = torch.Generator().manual_seed(number)
    clips = torch.rand(size, 3, 9, 64, 64, generator=generator) * 2 - 1
    clips = clips.to(device).contiguous(memory_format=torch.channels_last_3d)
    labels = torch.randint(3, (size,), generator=generator).to(device)
    return Batch({"rgb": clips}, labels, tuple(range(size)), (1,) * size)


def steps_of(given: Recipe) -> TrainStep:
    """Return the train step of a network with three classes."""
    torch.manual_seed(0)
    streams = Streams({"rgb": InceptionI3d(3)})
    return TrainStep(given, streams, Labels(), make_accelerator(given))  # type: ignore[arg-type] # all it uses


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize(("precision", "parts"), [("fp16", 1), ("fp16", 2), ("bf16", 1)])
def test_graph(precision: str, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are the same to the bit, also after a smaller batch and an evaluation between."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    states, captured = [], 0
    for has_graph in (True, False):
        step = steps_of(recipe(precision))
        assert step._graph is not None
        if not has_graph:
            step._graph = None
        for number in range(14):
            size = 3 if number == 6 else 4
            given = [batch(number + 100 * part, size, "cuda") for part in range(parts)]
            step(given, number, 1e-2)
            captured += step._graph is not None and step._graph._captured is not None
            if number == 10:
                with step.evaluation_network():
                    pass
                step.begin_epoch(1)
        states.append(step.streams.state_dict())
    assert captured >= 4  # the other steps follow a change
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_graph_on_a_cpu() -> None:
    """On a CPU, a step launches its operators."""
    assert steps_of(recipe("bf16"))._graph is None
