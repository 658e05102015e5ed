"""Every option of a recipe does what it says: schedules, averages, clipping, weights, stopping."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from i3dzoo.errors import RecipeError, UnknownNameError
from i3dzoo.training import state
from i3dzoo.training.clips import Batch
from i3dzoo.training.engine import Engine, make_accelerator
from i3dzoo.training.journal import read_lines
from i3dzoo.training.plan import accumulation, epoch_batches, learning_rate_factor
from i3dzoo.training.ranges import RANGES
from i3dzoo.training.recipe import Recipe, Schedule, load_recipe, override, recipe_names

from .training_runs import Noise, network, run

STEP = "networks.rgb.Conv3d_1a_7x7.conv.weight"


def rates(schedule: Schedule, epochs: int = 10) -> list[float]:
    """The factors at whole epochs."""
    return [learning_rate_factor(schedule, epoch, epochs, 0.1) for epoch in range(epochs)]


class TestSchedules:
    def test_multistep(self) -> None:
        """The rate falls by the factor after each step."""
        found = rates(Schedule("multistep", steps=(3, 6), decay=0.1))
        assert found == pytest.approx([1] * 3 + [0.1] * 3 + [0.01] * 4)

    def test_cosine(self) -> None:
        """Half a cosine from the rate to the lowest one."""
        found = rates(Schedule("cosine", min_lr=0.01))
        expected = [0.1 + 0.9 * (1 + math.cos(math.pi * e / 10)) / 2 for e in range(10)]
        assert found == pytest.approx(expected)

    def test_patience_is_of_epochs(self, tmp_path: Path) -> None:
        """However rarely the network is evaluated, the rate falls after so many epochs."""
        given = ["schedule.kind=plateau", "schedule.patience=3", "evaluation.every=2"]
        run(tmp_path, ["optim.lr=1e-30", *given, "loop.epochs=7", "optim.head_lr_scale=1"])
        lines = [line for line in read_lines(tmp_path / "metrics.jsonl") if line["kind"] == "step"]
        # the loss of epoch 2 stays the lowest, and epoch 6 is more than three later
        assert [line["lr"] for line in lines[::2]] == pytest.approx([1e-30] * 6 + [1e-31])

    @pytest.mark.parametrize(
        ("lowest", "plateau", "expected"), [(0.5, 0.1, 1), (0.05, 0.1, 0.5), (0.001, 0.1, 0.1)]
    )
    def test_floor_of_a_plateau(self, lowest: float, plateau: float, expected: float) -> None:
        """The rate goes no lower than its floor, and a floor above the rate does not raise it."""
        schedule = Schedule("plateau", min_lr=lowest)
        assert learning_rate_factor(schedule, 0, 10, 0.1, plateau) == pytest.approx(expected)

    def test_warmup(self) -> None:
        """The rate rises linearly, and the first step is not of rate zero."""
        schedule = Schedule("constant", warmup_epochs=2)
        found = [learning_rate_factor(schedule, e, 10, 0.1) for e in (0, 0.5, 1, 2, 3)]
        assert found == pytest.approx([1e-3, 0.25, 0.5, 1, 1])

    def test_plateau(self, tmp_path: Path) -> None:
        """Without a lower loss for longer than the patience, the rate falls, down to its floor."""
        given = ["schedule.kind=plateau", "schedule.patience=1", "schedule.min_lr=1e-33"]
        run(tmp_path, ["optim.lr=1e-30", *given, "loop.epochs=6", "optim.head_lr_scale=1"])
        lines = [line for line in read_lines(tmp_path / "metrics.jsonl") if line["kind"] == "step"]
        # nothing is learnt at such rates: the loss of epoch 1 stays the lowest
        assert [line["lr"] for line in lines[::2]] == pytest.approx(
            [1e-30, 1e-30, 1e-30, 1e-31, 1e-31, 1e-32]
        )


def test_batches_are_a_function_of_seed_and_epoch() -> None:
    """Each clip comes once an epoch, in an order of its own."""
    first, again, other = (epoch_batches(10, 3, 1, epoch) for epoch in (0, 0, 1))
    assert first == again != other
    assert sorted(number for batch in epoch_batches(9, 3, 1, 0) for number in batch) == list(
        range(9)
    )
    assert [len(batch) for batch in first] == [3, 3, 3]
    assert [len(batch) for batch in epoch_batches(2, 3, 1, 0)] == [2]


@pytest.mark.parametrize(
    ("batch", "world", "most", "parts"),
    [(64, 1, 8, 8), (64, 8, 8, 1), (64, 2, 5, 8), (16, 3, 8, None), (16, 1, 0, None), (6, 1, 9, 1)],
)
def test_accumulation(batch: int, world: int, most: int, parts: int | None) -> None:
    """The fewest parts that divide the share and fit."""
    assert accumulation(batch, world, most) == parts


LABELS = (0, 1, 1, 1)


def four() -> tuple[Noise, torch.Tensor]:
    """Four clips, one of the first class and three of the second."""
    clips = Noise(4)
    clips.labels = list(LABELS)
    return clips, torch.stack([clips.clip(0, number).views["rgb"] for number in range(4)])


def one_step(*settings: str) -> tuple[float, Engine]:
    """Take one step on the four clips; return the loss and the engine."""
    base = ["network.freeze=none", "network.batchnorm=frozen", "optim.head_lr_scale=1"]
    recipe = override(load_recipe("smoke"), [*base, "loop.batch_size=4", *settings])
    clips, stacked = four()
    engine = Engine(recipe, network(), clips, make_accelerator(recipe, "cpu"))
    result = engine.step([Batch({"rgb": stacked}, torch.tensor(LABELS))], 0, 1.0)
    return result.loss, engine


def test_label_smoothing_and_class_weights() -> None:
    """The loss is PyTorch's own with the same smoothing and weights."""
    with torch.no_grad():
        logits = network().eval()({"rgb": four()[1]})
    for settings, options in (
        ((), {}),
        (("optim.label_smoothing=0.2",), {"label_smoothing": 0.2}),
        (("optim.class_weights=balanced",), {"weight": torch.tensor([2.0, 2 / 3])}),
    ):
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS), **options)  # type: ignore[arg-type] # its options
        assert one_step(*settings)[0] == pytest.approx(float(expected), rel=1e-5)


def test_gradient_clipping() -> None:
    """One SGD step without momentum moves all weights together by rate times the largest norm."""
    settings = ("optim.lr=0.5", "optim.momentum=0", "optim.weight_decay=0")

    def moved(*more: str) -> float:
        before, after = network().state_dict(), one_step(*settings, *more)[1].streams.state_dict()
        return math.sqrt(sum(float(((after[k] - before[k]).double() ** 2).sum()) for k in before))

    assert moved("optim.clip_grad_norm=0.01") == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert moved() > 0.01


def test_moving_average() -> None:
    """The average moves by its decay, is what is evaluated, and leaves training as it is."""
    before = network().state_dict()[STEP]
    _, engine = one_step("optim.lr=0.1", "network.ema=0.75")
    after = engine.streams.state_dict()[STEP].clone()
    assert not torch.equal(before, after)
    with engine.averaged() as averaged:
        torch.testing.assert_close(averaged.state_dict()[STEP], 0.75 * before + 0.25 * after)
    assert torch.equal(engine.streams.state_dict()[STEP], after)


def test_discriminative_rates() -> None:
    """The head learns at its own rate."""
    settings = ("optim.lr=0.1", "optim.momentum=0", "optim.weight_decay=0")
    before, head = network().state_dict(), "networks.rgb.Logits.Conv3d_0c_1x1.conv.weight"
    once = one_step(*settings)[1].streams.state_dict()
    tenfold = one_step(*settings, "optim.head_lr_scale=10")[1].streams.state_dict()
    torch.testing.assert_close(tenfold[STEP], once[STEP])
    torch.testing.assert_close(tenfold[head] - before[head], 10 * (once[head] - before[head]))


@pytest.mark.parametrize(
    "settings",
    [
        ["loop.precision=bf16"],
        ["loop.channels_last=true"],
        ["network.batchnorm=sync"],
        ["optim.kind=adamw", "optim.lr=0.005", "optim.head_lr_scale=1"],
        ["optim.nesterov=true"],
    ],
)
def test_it_learns_with(tmp_path: Path, settings: list[str]) -> None:
    """Half precision, another layout, another optimiser: the loss falls all the same."""
    run(tmp_path, ["optim.lr=0.02", "loop.epochs=4", *settings])
    losses = [line["loss"] for line in read_lines(tmp_path / "metrics.jsonl") if "loss" in line]
    assert losses[-1] < 0.75 * losses[0]


def test_early_stop(tmp_path: Path) -> None:
    """Without a better top-1 for so many epochs it stops, and resuming adds none."""
    settings = ["optim.lr=1e-30", "loop.early_stop=2", "loop.epochs=9"]
    result, _ = run(tmp_path, settings)
    assert (result.position.best_epoch, result.position.epoch) == (1, 3)
    again, _ = run(tmp_path, settings, state.latest(tmp_path))
    assert again.position == result.position


def test_stopped_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    """A run that stops at a step and goes on gives the weights of one that did not stop."""
    settings = ["optim.lr=0.02", "loop.epochs=3", "network.dropout=0.5"]
    _, whole = run(tmp_path / "whole", settings)
    stopped, _ = run(tmp_path / "parts", [*settings, "loop.max_steps=3"])
    assert (stopped.position.epoch, stopped.position.batch) == (1, 1)
    assert stopped.position.evaluated == 3
    assert (stopped.position.best_epoch, stopped.position.best_step) in ((1, 2), (1.5, 3))
    _, parts = run(tmp_path / "parts", settings, state.latest(tmp_path / "parts"))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name


def test_rare_evaluations(tmp_path: Path) -> None:
    """The network is evaluated every so many epochs, and at the end."""
    run(tmp_path, ["loop.epochs=5", "evaluation.every=2"])
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [line["epoch"] for line in lines if line["kind"] == "epoch"] == [2, 4, 5]


def test_tensorboard(tmp_path: Path) -> None:
    """The scalars are those of metrics.jsonl, and a resumed run goes on with them."""
    run(tmp_path, ["optim.lr=0.02", "loop.epochs=1"])
    run(tmp_path, ["optim.lr=0.02", "loop.epochs=2"], state.latest(tmp_path))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = [line["loss"] for line in read_lines(tmp_path / "metrics.jsonl") if "loss" in line]
    found = events.Scalars("train/loss")
    assert [each.step for each in found] == [1, 2, 3, 4]
    np.testing.assert_allclose([each.value for each in found], losses, rtol=1e-6)
    assert {"train/lr", "train/data_wait", "validation/top1"} <= set(events.Tags()["scalars"])


class TestRecipes:
    def test_all_that_ship_are_whole(self) -> None:
        """Each loads, says where it is from, and comes back from its own document."""
        assert recipe_names() == ("paper", "small", "smoke", "tao")
        for name in recipe_names():
            recipe = load_recipe(name)
            assert recipe.title
            assert override(recipe, []) == recipe

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ("optim.moment=1", r"unknown key optim.moment; did you mean optim.momentum\?"),
            ("optim.lr=fast", "optim.lr is 'fast'; expected float"),
            ("optim.kind=lion", "optim.kind is 'lion'; expected 'sgd' or 'adamw'"),
            ("lr=1", "unknown key lr; expected"),
            ("optim.lr", "expected SECTION.KEY=VALUE"),
            ("schedule.steps=[1, x]", "schedule.steps is 'x'; expected int"),
            ("title.x=1", r"--set title.x=1: expected SECTION.KEY=VALUE with a section of aug"),
            ("loop.seed=[1", r"--set loop.seed=\[1: the value is no YAML; expected one such as"),
            ("loop.seed=4294967296", r"loop.seed is 4294967296; expected 0\.\.4294967295"),
            ("network.ema=1.5", r"network.ema is 1.5; expected 0\.\.1"),
            ("optim.label_smoothing=2", r"optim.label_smoothing is 2.0; expected 0\.\.1"),
            ("optim.lr=0", "optim.lr is 0.0; expected more than 0"),
            ("optim.lr=.nan", "optim.lr is nan; expected more than 0"),
            ("optim.weight_decay=-1", "optim.weight_decay is -1.0; expected at least 0"),
            ("loop.workers=-1", "loop.workers is -1; expected at least 0"),
            ("loop.max_steps=0", "loop.max_steps is 0; expected at least 1"),
            ("evaluation.every=0", "evaluation.every is 0; expected at least 1"),
            ("augment.frames=0", "augment.frames is 0; expected at least 9"),
            ("augment.std=[1, 0, 1]", "augment.std is 0.0; expected more than 0"),
            ("augment.mean=[]", r"augment.mean is \[\]; expected a number for each channel"),
            ("augment.fps=abc", "augment.fps is 'abc'; expected 'checkpoint', 'native' or a numb"),
            ("schedule.steps=[-1]", "schedule.steps is -1; expected at least 0"),
        ],
    )
    def test_wrong_settings(self, setting: str, message: str) -> None:
        """What is wrong is named, with the nearest known key."""
        with pytest.raises(RecipeError, match=message):
            override(Recipe(), [setting])

    def test_every_number_has_a_range(self) -> None:
        """No key that holds numbers is without one, and nesterov needs a momentum."""
        numbers = {
            f"{section}.{field.name}"
            for section, part in vars(Recipe()).items()
            if dataclasses.is_dataclass(part)
            for field in dataclasses.fields(part)
            if "Literal" not in str(field.type)
            and ("int" in str(field.type) or "float" in str(field.type))
        }
        assert set(RANGES) == numbers
        with pytest.raises(RecipeError, match=r"optim.momentum is 0, and optim.nesterov is true"):
            override(Recipe(), ["optim.nesterov=true", "optim.momentum=0"])

    def test_files(self, tmp_path: Path) -> None:
        """A recipe of one's own is a file; what it leaves out has its default."""
        path = tmp_path / "own.yaml"
        path.write_text("optim: {lr: 1e-3}\nschedule: {kind: cosine}\n")
        assert load_recipe(path).optim.lr == 1e-3
        with pytest.raises(UnknownNameError, match="is neither a recipe nor a file; there are"):
            load_recipe("nothing")
        path.write_text("optim: [")
        with pytest.raises(RecipeError, match="is no YAML"):
            load_recipe(path)
