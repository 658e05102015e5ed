"""Training recipes: YAML files loaded into frozen records; every key is known, or an error.

A recipe says how to train, not what on: data and weights come from the command line or from a TAO
spec. `i3dzoo/recipes/` holds those that ship.
"""

import dataclasses
import difflib
import importlib.util
import types
import typing
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from i3dzoo.errors import DependencyError, RecipeError, UnknownNameError
from i3dzoo.training.ranges import RANGES, Range, check_range, check_together

__all__ = [
    "Augment",
    "Evaluation",
    "Loop",
    "Network",
    "Optim",
    "Recipe",
    "Schedule",
    "check_value",
    "load_recipe",
    "need_yaml",
    "override",
    "recipe_names",
    "yaml_value",
]


@dataclass(frozen=True)
class Network:
    """What is trained.

    Attributes:
        dropout: Before the head, 0..1.
        freeze: `none`, `trunk` (all but the head), or `until:ENDPOINT` (that endpoint and all
            before it).
        unfreeze_epoch: Epoch at which what is frozen begins to learn; None leaves it frozen.
        batchnorm: `train` updates statistics on each device, `sync` over all devices, `frozen`
            keeps those of the checkpoint; with small batches that helps.
        ema: Decay of an exponential moving average of the weights, which is what is evaluated
            and kept; None keeps the weights themselves.
        init: `checkpoint`, or `random`, which takes nothing of it but its shape.
    """

    dropout: float = 0.5
    freeze: str = "none"
    unfreeze_epoch: int | None = None
    batchnorm: Literal["train", "sync", "frozen"] = "train"
    ema: float | None = None
    init: Literal["checkpoint", "random"] = "checkpoint"


@dataclass(frozen=True)
class Augment:
    """How a training clip is made.

    Attributes:
        frames: Of one clip; None takes the checkpoint's.
        resize: Short side in pixels; None takes the checkpoint's.
        crop: Edge of the square crop; None takes the checkpoint's.
        train_crop: `random`, or `center`.
        flip: Probability of a horizontal flip; of flow, the x component changes sign with it.
        mean: Of each channel in 0..1, in place of the checkpoint's.
        std: Likewise.
        clips_per_video: Clips taken of each video in an epoch.
        fps: Frames a second; `checkpoint`, `native`, or a number.
    """

    frames: int | None = None
    resize: int | None = None
    crop: int | None = None
    train_crop: Literal["random", "center"] = "random"
    flip: float = 0.5
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    clips_per_video: int = 1
    fps: str = "native"


@dataclass(frozen=True)
class Optim:
    """The optimiser.

    Attributes:
        kind: `sgd` or `adamw`.
        lr: For `Loop.batch_size` clips a step, over all devices.
        momentum: Of SGD.
        nesterov: Of SGD.
        weight_decay: L2 of SGD, decoupled for AdamW.
        head_lr_scale: Factor on the learning rate of the head.
        clip_grad_norm: Largest norm of all gradients together; None does not clip.
        label_smoothing: 0..1.
        class_weights: `none`, or `balanced`: inversely to how often a class occurs.
    """

    kind: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-7
    head_lr_scale: float = 1.0
    clip_grad_norm: float | None = None
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes.

    Attributes:
        kind: `multistep`, `cosine`, `plateau` (of the validation loss) or `constant`.
        steps: Epochs after which `multistep` multiplies by `decay`.
        decay: Factor of `multistep` and `plateau`.
        patience: Epochs without improvement that `plateau` waits.
        min_lr: `cosine` ends here, `plateau` goes no lower but for a rate that begins lower.
        warmup_epochs: Epochs over which the rate rises from 0, linearly; may be a fraction.
    """

    kind: Literal["multistep", "cosine", "plateau", "constant"] = "multistep"
    steps: tuple[int, ...] = (12, 25)
    decay: float = 0.1
    patience: int = 10
    min_lr: float = 0.0
    warmup_epochs: float = 0.0


@dataclass(frozen=True)
class Loop:
    """The loop.

    Attributes:
        epochs: Passes over the training videos.
        max_steps: Optimiser steps after which to stop, however many epochs that is.
        batch_size: Clips an optimiser step, over all devices and accumulations.
        accumulate: Parts that each device cuts its share of a batch into, to save memory.
        precision: `fp32`, `bf16` or `fp16` (with loss scaling).
        seed: Of everything that is drawn.
        workers: Processes that decode.
        channels_last: Memory layout; faster on GPUs with half precision, and on CPUs.
        compile: Whether to use torch.compile.
        checkpoint_activations: Recompute blocks in the backward pass, to save memory.
        save_every: Steps between checkpoints; None saves once an epoch.
        early_stop: Epochs without a better top-1 after which to stop; None goes on.
        cudnn_benchmark: Whether cuDNN looks for its fastest algorithms, for clips of one size.
        cudnn_deterministic: Whether cuDNN computes the same twice, which is slower.
    """

    epochs: int = 35
    max_steps: int | None = None
    batch_size: int = 64
    accumulate: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = 1234
    workers: int = 8
    channels_last: bool = False
    compile: bool = False
    checkpoint_activations: bool = False
    save_every: int | None = None
    early_stop: int | None = None
    cudnn_benchmark: bool = False
    cudnn_deterministic: bool = False


@dataclass(frozen=True)
class Evaluation:
    """How the network is evaluated.

    Attributes:
        protocol: `center`, `tao`, `paper`, or `multi:CLIPSxCROPS`; see `i3dzoo evaluate`.
        every: Epochs between evaluations.
        batch_size: Clips at once on each device.
    """

    protocol: str = "center"
    every: int = 1
    batch_size: int = 8


@dataclass(frozen=True)
class Recipe:
    """How to train: the sections of a recipe file.

    Attributes:
        title: One line about it, with its source.
        network: What is trained.
        augment: How a training clip is made.
        optim: The optimiser.
        schedule: How the learning rate changes.
        loop: Epochs, batches, precision, seeds.
        evaluation: How it is evaluated.
    """

    title: str = ""
    network: Network = field(default_factory=Network)
    augment: Augment = field(default_factory=Augment)
    optim: Optim = field(default_factory=Optim)
    schedule: Schedule = field(default_factory=Schedule)
    loop: Loop = field(default_factory=Loop)
    evaluation: Evaluation = field(default_factory=Evaluation)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as YAML and JSON take it."""
        return dataclasses.asdict(self)


def need_yaml() -> None:
    """Make sure that PyYAML is there.

    Raises:
        DependencyError: It is not installed.
    """
    if importlib.util.find_spec("yaml") is None:
        raise DependencyError("recipes need PyYAML: pip install 'i3dzoo[train]'")


def recipe_names() -> tuple[str, ...]:
    """Return the recipes that ship, in alphabetical order."""
    found = (entry.name for entry in (files("i3dzoo") / "recipes").iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml")))


def load_recipe(name: str | Path) -> Recipe:
    """Return a recipe that ships, by name, or one of the user's own, by file.

    Raises:
        UnknownNameError: It is neither.
        RecipeError: A key is unknown, or a value is not of its type or range; the message names
            the nearest key.
    """
    if str(name) in recipe_names():
        text = (files("i3dzoo") / "recipes" / f"{name}.yaml").read_text("utf-8")
    elif Path(name).is_file():
        text = Path(name).read_text("utf-8")
    else:
        raise UnknownNameError(
            f"{name}: is neither a recipe nor a file; there are {', '.join(recipe_names())}"
        )
    need_yaml()
    import yaml

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{name}: is no YAML: {error}") from error
    return _recipe(str(name), document or {})


def override(recipe: Recipe, settings: typing.Iterable[str]) -> Recipe:
    """Return a recipe with `KEY=VALUE` settings applied, such as `optim.lr=0.005`.

    Values are YAML: `null` is None, `[12, 25]` a list.

    Raises:
        RecipeError: A key is unknown, a value is not of its type or range, or there is no `=`.
    """
    document = recipe.to_dict()
    for setting in settings:
        key, equals, value = setting.partition("=")
        section, dot, name = key.partition(".")
        sections = {name: part for name, part in document.items() if isinstance(part, dict)}
        if not equals or (dot and section not in sections):
            raise RecipeError(
                f"--set {setting}: expected SECTION.KEY=VALUE with a section of {_listed(sections)}"
            )
        target = document[section] if dot else document
        target[name if dot else key] = yaml_value(f"--set {setting}", value)
    return _recipe("--set", document)


def yaml_value(where: str, text: str) -> Any:
    """Return the value of a `KEY=VALUE` setting.

    Args:
        where: The setting, for the message.
        text: Its value, in YAML.

    Raises:
        RecipeError: It is no YAML.
    """
    need_yaml()
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a date that does not exist is a ValueError
        raise RecipeError(
            f"{where}: the value is no YAML; expected one such as 1, true, null or [12, 25]"
        ) from error


def _recipe(where: str, document: Any) -> Recipe:
    recipe: Recipe = _record(where, Recipe, document, "")
    check_together(where, recipe)
    return recipe


def _record(where: str, kind: Any, document: Any, path: str) -> Any:
    """Make a record of a mapping, every key known and every value of its type and range."""
    if not isinstance(document, dict):
        raise RecipeError(f"{where}: {path[:-1] or 'the file'} is {document!r}; expected a mapping")
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in document.items():
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.5)
            hint = f"did you mean {path}{near[0]}?" if near else f"expected {_listed(hints)}"
            raise RecipeError(f"{where}: unknown key {path}{key}; {hint}")
        if dataclasses.is_dataclass(hints[key]):
            values[key] = _record(where, hints[key], value, f"{path}{key}.")
        else:
            name = f"{path}{key}"
            values[key] = check_value(where, hints[key], value, name)
            check_range(where, name, values[key], RANGES.get(name, Range()))
    return kind(**values)


def check_value(where: str, hint: Any, value: Any, path: str) -> Any:
    """Check a value against a type hint; whole numbers are numbers, lists become tuples.

    Args:
        where: The file, for the message.
        hint: The type, such as `int | None` or a Literal.
        value: As YAML gave it.
        path: The key, for the message.

    Raises:
        RecipeError: It is of another type.
    """
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        if option is type(None) and value is None:
            return None
        if typing.get_origin(option) is Literal and value in typing.get_args(option):
            return value
        if typing.get_origin(option) is tuple and isinstance(value, list | tuple):
            item = typing.get_args(option)[0]
            return tuple(check_value(where, item, each, path) for each in value)
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if option is float and isinstance(value, str) and _is_number(value):
            return float(value)  # YAML 1.1 takes 1e-7 for a text
        if option in (int, bool, str) and type(value) is option:
            return value
        if option is str and isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
    raise RecipeError(f"{where}: {path} is {value!r}; expected {_expected(options)}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _expected(options: tuple[Any, ...]) -> str:
    words = []
    for option in options:
        if typing.get_origin(option) is Literal:
            words += [repr(each) for each in typing.get_args(option)]
        else:
            words.append(
                "null" if option is type(None) else getattr(option, "__name__", str(option))
            )
    return " or ".join(words)


def _listed(keys: typing.Iterable[str]) -> str:
    return ", ".join(sorted(keys))
