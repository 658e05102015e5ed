"""Training recipes: YAML files that are checked into frozen records.

A recipe describes how to train. The data and the models come from the command line, from
`i3dzoo.finetune` or from a TAO spec. The recipes that ship are in `i3dzoo/training/recipes/`.
"""

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from i3dzoo.errors import RecipeError, UnknownNameError
from i3dzoo.network.architecture import ENDPOINTS, MIN_FRAMES
from i3dzoo.records import Record, convert, parse_yaml, read_yaml

_RECIPES = files("i3dzoo.training") / "recipes"

Fraction = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
Size = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Freeze = Annotated[
    str,
    Meta(
        pattern=f"^(none|trunk|until:({'|'.join(ENDPOINTS)}))$",
        description=f"none, trunk, or until: and one of {', '.join(ENDPOINTS)}",
    ),
]
ResizeMode = Literal["short", "squash"]
PerChannel = Meta(min_length=1, description="a number for each channel")


class Network(Record, frozen=True):
    """The section `network`: which parts of the network are trained.

    Attributes:
        dropout: Dropout before the head, 0..1.
        freeze: `none`, `trunk` (all but the head), or `until:ENDPOINT` (this endpoint and all
            before it).
        unfreeze_epoch: Epoch at which frozen parts are unfrozen; None keeps them frozen.
        batchnorm: `train` updates the statistics on each device, `sync` over all devices; `frozen`
            keeps those of the checkpoint, which helps with small batches.
        ema: Decay of an exponential moving average of the weights, which is evaluated and kept
            instead of the weights; None uses the weights.
        init: `checkpoint`, or `random` to use only the shape of the checkpoint.
    """

    dropout: Fraction = 0.5
    freeze: Freeze = "none"
    unfreeze_epoch: Count | None = None
    batchnorm: Literal["train", "sync", "frozen"] = "train"
    ema: Fraction | None = None
    init: Literal["checkpoint", "random"] = "checkpoint"


class Augment(Record, frozen=True):
    """The section `augment`: how a training clip is made.

    Attributes:
        frames: Frames of a clip; None takes the checkpoint's.
        resize: Short side in pixels; None takes the checkpoint's.
        resize_mode: `short` resizes the short side, then crops; `squash` resizes both sides to
            `crop`; None takes the checkpoint's.
        test_resize_mode: The same for evaluation and for the checkpoint; None is `resize_mode`.
        crop: Edge of the square crop in pixels; None takes the checkpoint's.
        sampling: `consecutive` frames, or one from each of `frames` equal parts of the video
            (`interval`); None takes the checkpoint's.
        train_crop: `random` or `center`.
        flip: Probability of a horizontal flip; in flow, it also changes the sign of x.
        mean: Mean of each channel, 0..1; None takes the checkpoint's.
        std: Standard deviation of each channel, 0..1; None takes the checkpoint's.
        clips_per_video: Clips of each video in an epoch.
        fps: Frame rate: a number, `native` for that of the video, or `checkpoint`.
    """

    frames: Annotated[int, Meta(ge=MIN_FRAMES)] | None = None
    resize: Size | None = None
    resize_mode: ResizeMode | None = None
    test_resize_mode: ResizeMode | None = None
    crop: Size | None = None
    sampling: Literal["consecutive", "interval"] | None = None
    train_crop: Literal["random", "center"] = "random"
    flip: Fraction = 0.5
    mean: Annotated[tuple[float, ...], PerChannel] | None = None
    std: Annotated[tuple[Positive, ...], PerChannel] | None = None
    clips_per_video: Size = 1
    fps: Literal["checkpoint", "native"] | Positive = "native"


class Optim(Record, frozen=True):
    """The section `optim`: the optimiser.

    Attributes:
        kind: `sgd` or `adamw`.
        lr: Learning rate for `loop.batch_size` clips per step, over all devices.
        momentum: Momentum of SGD.
        nesterov: Whether SGD uses Nesterov momentum.
        weight_decay: L2 penalty of SGD; decoupled for AdamW.
        head_lr_scale: Factor of the learning rate of the head.
        clip_grad_norm: Largest norm of all gradients together; None does not clip.
        label_smoothing: Label smoothing, 0..1.
        class_weights: `none`, or `balanced`: inversely proportional to the frequency of a class.
    """

    kind: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = 0.01
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: NonNegative = 1e-7
    head_lr_scale: NonNegative = 1.0
    clip_grad_norm: Positive | None = None
    label_smoothing: Fraction = 0.0
    class_weights: Literal["none", "balanced"] = "none"

    def __post_init__(self) -> None:
        if self.kind == "sgd" and self.nesterov and not self.momentum:
            raise ValueError("expected a momentum greater than 0 with nesterov, found 0")


class Schedule(Record, frozen=True):
    """The section `schedule`: how the learning rate changes.

    Attributes:
        kind: `multistep`, `cosine`, `plateau` (of the validation loss) or `constant`.
        steps: Epochs after which `multistep` multiplies by `decay`.
        decay: Factor of `multistep` and `plateau`.
        patience: Epochs without improvement before `plateau` reduces the rate.
        min_lr: Final rate of `cosine`, and lower limit of `plateau`.
        warmup_epochs: Epochs, or a fraction, in which the rate rises linearly from 0.
    """

    kind: Literal["multistep", "cosine", "plateau", "constant"] = "multistep"
    steps: tuple[Count, ...] = (12, 25)
    decay: Fraction = 0.1
    patience: Count = 10
    min_lr: NonNegative = 0.0
    warmup_epochs: NonNegative = 0.0


class Loop(Record, frozen=True):
    """The section `loop`: epochs, batches, precision and seed.

    Attributes:
        epochs: Passes over the training videos.
        max_steps: Optimiser steps after which to stop, regardless of `epochs`; None is no limit.
        batch_size: Clips of an optimiser step, over all devices and parts.
        accumulate: Parts that each device cuts its share of a batch into, to save memory.
        precision: `fp32`, `bf16`, or `fp16` with loss scaling.
        seed: Seed of everything random.
        workers: Processes that decode videos.
        channels_last: Memory layout; faster on GPUs with half precision, and on CPUs.
        compile: Whether to use torch.compile.
        checkpoint_activations: Recompute activations in the backward pass, to save memory.
        save_every: Steps between checkpoints; None saves once an epoch.
        early_stop: Epochs without a better top-1 after which to stop; None does not stop early.
        cudnn_benchmark: Whether cuDNN searches for its fastest algorithms for clips of one size.
        cudnn_deterministic: Whether cuDNN uses deterministic algorithms, which are slower.
    """

    epochs: Size = 35
    max_steps: Size | None = None
    batch_size: Size = 64
    accumulate: Size = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: Seed = 1234
    workers: Count = 8
    channels_last: bool = False
    compile: bool = False
    checkpoint_activations: bool = False
    save_every: Size | None = None
    early_stop: Size | None = None
    cudnn_benchmark: bool = False
    cudnn_deterministic: bool = False


class EvaluationSettings(Record, frozen=True):
    """The section `evaluation`: how the network is evaluated.

    Attributes:
        protocol: `center`, `tao`, `paper`, or `multi:CLIPSxCROPS`; see `i3dzoo evaluate`.
        every: Epochs between evaluations.
        batch_size: Clips at once on each device.
    """

    protocol: str = "center"
    every: Size = 1
    batch_size: Size = 8


class Recipe(Record, frozen=True):
    """How to train: the sections of a recipe file.

    Attributes:
        title: One line that describes the recipe and its source.
        network: Which parts of the network are trained.
        augment: How a training clip is made.
        optim: The optimiser.
        schedule: How the learning rate changes.
        loop: Epochs, batches, precision and seed.
        evaluation: How the network is evaluated.
    """

    title: str = ""
    network: Network = Network()
    augment: Augment = Augment()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    loop: Loop = Loop()
    evaluation: EvaluationSettings = EvaluationSettings()

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain data, for YAML and JSON."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return document


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes that ship, in alphabetical order."""
    names = (entry.name for entry in _RECIPES.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def load_recipe(name: str | Path) -> Recipe:
    """Load a recipe that ships, by name, or a YAML file."""
    names = recipe_names()
    if str(name) in names:
        text = (_RECIPES / f"{name}.yaml").read_bytes()
        document = parse_yaml(text, where=str(name), error=RecipeError)
    elif Path(name).exists():
        document = read_yaml(name, error=RecipeError)
    else:
        raise UnknownNameError(
            f"{name}: not a recipe and not a file; the recipes are {', '.join(names)}"
        )
    return convert({} if document is None else document, Recipe, str(name), RecipeError)


def override(recipe: Recipe, settings: Mapping[str, Any] | Iterable[str]) -> Recipe:
    """Return a recipe with some keys replaced.

    The settings are values by key, `{"optim.lr": 0.005}`, or texts, `["optim.lr=0.005"]`, whose
    values are YAML: `null` is None, and `[12, 25]` is a list.
    """
    if isinstance(settings, Mapping):
        where, values = "settings", list(settings.items())
    else:
        where = "--set"
        values = [parse_setting(setting, "--set ", "optim.lr=0.005") for setting in settings]
    document = recipe.to_dict()
    for key, value in values:
        section, dot, name = key.partition(".")
        target = document.get(section) if dot else document
        if not isinstance(target, dict):
            sections = sorted(name for name, part in document.items() if isinstance(part, dict))
            raise RecipeError(
                f"{where} {key}: expected SECTION.KEY with one of the sections "
                f"{', '.join(sections)}, such as optim.lr"
            )
        target[name if dot else key] = value
    return convert(document, Recipe, where, RecipeError)


def parse_setting(setting: str, option: str, example: str) -> tuple[str, Any]:
    """Return the key and the value of `KEY=VALUE`, whose value is YAML.

    A message names the option before the setting, and shows an example of a setting.
    """
    key, equals, text = setting.partition("=")
    if not equals:
        raise RecipeError(f"{option}{setting}: expected KEY=VALUE, such as {example}")
    return key, parse_yaml(text, where=f"{option}{setting}", error=RecipeError)
