"""The settings of a recipe: schedules, moving average, clipping, class weights, stopping."""

import math
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import torch
from helpers.training_runs import Noise, losses, network, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from i3dzoo.errors import RecipeError, UnknownNameError
from i3dzoo.training.metric_logger import read_metric_lines
from i3dzoo.training.recipe import Recipe, Schedule, load_recipe, override, recipe_names
from i3dzoo.training.schedule import accumulation, learning_rate_factor
from i3dzoo.training.train_step import TrainStep, make_accelerator
from i3dzoo.video import Batch

STEP = "networks.rgb.Conv3d_1a_7x7.conv.weight"


COSINE = [0.1 + 0.9 * (1 + math.cos(math.pi * epoch / 10)) / 2 for epoch in range(10)]


@pytest.mark.parametrize(
    ("schedule", "plateau", "expected"),
    [
        # at whole epochs of ten, with the rate 0.1
        (Schedule("multistep", steps=(3, 6), decay=0.1), 1, [1] * 3 + [0.1] * 3 + [0.01] * 4),
        (Schedule("cosine", min_lr=0.01), 1, COSINE),
        (Schedule("constant", warmup_epochs=2), 1, [1e-3, 0.5, 1]),  # the first step moves weights
        (Schedule("plateau", min_lr=0.05), 0.1, [0.5]),
        (Schedule("plateau", min_lr=0.001), 0.1, [0.1]),
        (Schedule("plateau", min_lr=0.5), 0.1, [1]),  # a floor above the rate does not raise it
    ],
)
def test_schedules(schedule: Schedule, plateau: float, expected: list[float]) -> None:
    """Each schedule multiplies the learning rate by its factor, and keeps to its floor."""
    factors = [learning_rate_factor(schedule, e, 10, 0.1, plateau) for e in range(len(expected))]
    assert factors == pytest.approx(expected)


@pytest.mark.parametrize(
    ("patience", "every", "expected"),
    [
        # the loss of epoch 1 stays the lowest, and epoch 3 is more than one later
        (1, 1, [1e-30, 1e-30, 1e-30, 1e-31, 1e-31, 1e-32]),
        # the loss of epoch 2 stays the lowest, and epoch 6 is more than three later
        (3, 2, [1e-30] * 6 + [1e-31]),
    ],
)
def test_plateau(tmp_path: Path, patience: int, every: int, expected: list[float]) -> None:
    """If the loss does not fall for more epochs than the patience, the rate falls.

    The patience counts epochs, even if the network is evaluated less often, at an interval of
    epochs and at the end.
    """
    settings = ["optim.lr=1e-30", "optim.head_lr_scale=1"]  # the network does not change
    settings += ["schedule.kind=plateau", f"schedule.patience={patience}", "schedule.min_lr=1e-33"]
    settings += [f"evaluation.every={every}", f"loop.epochs={len(expected)}"]
    run(tmp_path, settings)
    lines = read_metric_lines(tmp_path / "metrics.jsonl")
    rates = [line["lr"] for line in lines if line["kind"] == "step"]
    assert rates[::2] == pytest.approx(expected)
    evaluated = {line["epoch"] for line in lines if line["kind"] == "epoch"}
    assert evaluated == {*range(every, len(expected) + 1, every), len(expected)}


@pytest.mark.parametrize(
    ("batch", "world", "most", "parts"),
    [(64, 1, 8, 8), (64, 8, 8, 1), (64, 2, 5, 8), (16, 3, 8, None), (16, 1, 0, None), (6, 1, 9, 1)],
)
def test_accumulation(batch: int, world: int, most: int, parts: int | None) -> None:
    """The result is the smallest number of parts that divides the share and fits."""
    assert accumulation(batch, world, most) == parts


LABELS = (0, 1, 1, 1)


def four() -> tuple[Noise, torch.Tensor]:
    """Return four clips, one of the first class and three of the second."""
    clips = Noise(4)
    clips.labels = list(LABELS)
    return clips, clips.stack(0, range(4))


def one_step(*settings: str) -> tuple[float, TrainStep]:
    """Take one step on the four clips; return the loss, and the train step."""
    base = ["network.freeze=none", "network.batchnorm=frozen", "optim.head_lr_scale=1"]
    recipe = override(load_recipe("smoke"), [*base, "loop.batch_size=4", *settings])
    clips, stacked = four()
    train_step = TrainStep(recipe, network(), clips, make_accelerator(recipe, "cpu"))
    result = train_step(
        [Batch({"rgb": stacked}, torch.tensor(LABELS), (0, 1, 2, 3), (1,) * 4)], 0, 1.0
    )
    return result.loss, train_step


def test_label_smoothing_and_class_weights() -> None:
    """The loss is PyTorch's with the same smoothing and weights."""
    with torch.no_grad():
        logits = network().eval()({"rgb": four()[1]})
    for settings, loss in (
        ((), nn.CrossEntropyLoss()),
        (("optim.label_smoothing=0.2",), nn.CrossEntropyLoss(label_smoothing=0.2)),
        (("optim.class_weights=balanced",), nn.CrossEntropyLoss(torch.tensor([2.0, 2 / 3]))),
    ):
        expected = loss(logits, torch.tensor(LABELS)).item()
        assert one_step(*settings)[0] == pytest.approx(expected, rel=1e-5)


def test_gradient_clipping() -> None:
    """A step of SGD without momentum moves the weights by the rate times the largest norm."""
    settings = ("optim.lr=0.5", "optim.momentum=0", "optim.weight_decay=0")

    def moved(*more: str) -> float:
        before, after = network().state_dict(), one_step(*settings, *more)[1].streams.state_dict()
        return math.sqrt(sum(float(((after[k] - before[k]).double() ** 2).sum()) for k in before))

    assert moved("optim.clip_grad_norm=0.01") == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert moved() > 0.01


def test_moving_average() -> None:
    """The average moves by its decay and is evaluated; the trained weights do not change."""
    before = network().state_dict()[STEP]
    _, train_step = one_step("optim.lr=0.1", "network.ema=0.75")
    after = train_step.streams.state_dict()[STEP].clone()
    assert not torch.equal(before, after)
    with train_step.evaluation_network() as averaged:
        torch.testing.assert_close(averaged.state_dict()[STEP], 0.75 * before + 0.25 * after)
    assert torch.equal(train_step.streams.state_dict()[STEP], after)


def test_discriminative_rates() -> None:
    """The head has a learning rate of its own."""
    settings = ("optim.lr=0.1", "optim.momentum=0", "optim.weight_decay=0")
    before, head = network().state_dict(), "networks.rgb.Logits.Conv3d_0c_1x1.conv.weight"
    once = one_step(*settings)[1].streams.state_dict()
    tenfold = one_step(*settings, "optim.head_lr_scale=10")[1].streams.state_dict()
    torch.testing.assert_close(tenfold[STEP], once[STEP])
    torch.testing.assert_close(tenfold[head] - before[head], 10 * (once[head] - before[head]))


def test_early_stop(tmp_path: Path) -> None:
    """The run stops after epochs without a better top-1, and resuming adds no steps."""
    settings = ["optim.lr=1e-30", "loop.early_stop=2", "loop.epochs=9"]
    position, _ = run(tmp_path, settings)
    assert (position.best_epoch, position.epoch) == (1, 3)
    again, _ = run(tmp_path, settings)
    assert again == position


def test_stopped_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    """A run that stops within an epoch and is resumed ends with the same weights."""
    settings = ["optim.lr=0.02", "loop.epochs=3", "network.dropout=0.5"]
    _, whole = run(tmp_path / "whole", settings)
    stopped, _ = run(tmp_path / "parts", [*settings, "loop.max_steps=3"])
    assert (stopped.epoch, stopped.batch) == (1, 1)
    assert stopped.evaluated_step == 3
    assert (stopped.best_epoch, stopped.best_step) in ((1, 2), (1.5, 3))
    _, parts = run(tmp_path / "parts", settings)
    torch.testing.assert_close(whole.state_dict(), parts.state_dict(), rtol=0, atol=0)


def test_tensorboard(tmp_path: Path) -> None:
    """TensorBoard has the values of metrics.jsonl, also after the run is resumed."""
    run(tmp_path, ["optim.lr=0.02", "loop.epochs=1"])
    run(tmp_path, ["optim.lr=0.02", "loop.epochs=2"])
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    scalars = events.Scalars("train/loss")
    assert [scalar.step for scalar in scalars] == [1, 2, 3, 4]
    np.testing.assert_allclose([scalar.value for scalar in scalars], losses(tmp_path), rtol=1e-6)
    assert {"train/lr", "train/data_wait", "validation/top1"} <= set(events.Tags()["scalars"])


class TestRecipes:
    def test_shipped_recipes(self) -> None:
        """Every recipe that ships loads, has a title, and is read back from its own document."""
        assert recipe_names() == ("cpu", "paper", "small", "smoke", "tao")
        for name in recipe_names():
            recipe = load_recipe(name)
            assert recipe.title
            assert override(recipe, []) == recipe

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ("optim.moment=1", r"--set: optim.moment: unknown key; did you mean momentum\?"),
            ("optim.lr=fast", "optim.lr: expected a number greater than 0, found 'fast'"),
            ("optim.kind=lion", "optim.kind: expected 'adamw' or 'sgd', found 'lion'"),
            ("lr=1", "lr: unknown key; expected one of title"),
            ("optim.lr", "--set optim.lr: expected KEY=VALUE"),
            ("schedule.steps=[1, x]", r"schedule.steps\[1\]: expected an integer .*, found 'x'"),
            ("title.x=1", "--set title.x: expected SECTION.KEY with one of the sections augment"),
            ("loop.seed=[1", r"--set loop.seed=\[1: is not valid YAML"),
            ("loop.seed=4294967296", "loop.seed: expected an integer from 0 to 4294967295"),
            ("network.ema=1.5", "network.ema: expected .*a number from 0.* to 1.*, found 1.5"),
            ("network.freeze=until:Mixed_9", "network.freeze: expected none, trunk, or until: and"),
            ("optim.lr=0", "optim.lr: expected a number greater than 0.*, found 0"),
            ("optim.lr=.nan", "--set optim.lr=.nan: expected a finite number, found nan"),
            ("optim.weight_decay=-1", "weight_decay: expected a number of 0.* or more, found -1"),
            ("loop.workers=-1", "loop.workers: expected an integer of 0 or more, found -1"),
            ("loop.max_steps=0", "max_steps: expected .*an integer of 1 or more.*, found 0"),
            ("augment.frames=0", "frames: expected .*an integer of 9 or more.*, found 0"),
            ("augment.std=[1, 0, 1]", r"augment.std\[1\]: expected a number greater than 0"),
            ("augment.mean=[]", "augment.mean: expected .*a number for each channel.*, found"),
            ("augment.fps=abc", "augment.fps: expected .*'native' or a number greater than 0"),
            ("schedule.steps=[-1]", r"schedule.steps\[0\]: expected an integer of 0 or more"),
        ],
    )
    def test_wrong_settings(self, setting: str, message: str) -> None:
        """The message names the key, what was expected and what was found, or the nearest key."""
        with pytest.raises(RecipeError, match=message):
            override(Recipe(), [setting])

    def test_settings_together(self) -> None:
        """Nesterov needs a momentum, and settings can be given as values."""
        with pytest.raises(RecipeError, match=r"optim: expected a momentum greater than 0 with ne"):
            override(Recipe(), ["optim.nesterov=true", "optim.momentum=0"])
        recipe = override(Recipe(), {"optim.lr": 1, "schedule.steps": [3], "augment.fps": 25})
        assert (recipe.optim.lr, recipe.schedule.steps, recipe.augment.fps) == (1.0, (3,), 25.0)

    def test_every_number_has_a_range(self) -> None:
        """Every key that holds numbers refuses some of them."""
        for section in ("network", "augment", "optim", "schedule", "loop", "evaluation"):
            for key, kind in get_type_hints(type(getattr(Recipe(), section))).items():
                if "int" in str(kind) or "float" in str(kind):
                    with pytest.raises(RecipeError, match=f"{section}.{key}"):
                        override(Recipe(), {f"{section}.{key}": -2})

    def test_files(self, tmp_path: Path) -> None:
        """A recipe can be a file; keys that it does not set have their defaults."""
        path = tmp_path / "own.yaml"
        path.write_text("optim: {lr: 1e-3}\nschedule: {kind: cosine}\n")
        assert load_recipe(path).optim.lr == 1e-3
        with pytest.raises(UnknownNameError, match="nothing: not a recipe and not a file"):
            load_recipe("nothing")
        path.write_text("optim: [")
        with pytest.raises(RecipeError, match="is not valid YAML"):
            load_recipe(path)
