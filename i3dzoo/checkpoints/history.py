"""What was done to a checkpoint's weights, step by step."""

from typing import Literal

from msgspec import field

from i3dzoo.records import Record

Operation = Literal[
    "initialise", "inflate", "head", "rename", "stream", "dtype", "finetune", "describe", "change"
]


class HistoryStep(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One change of the weights; `str(step)` is a sentence about it.

    Attributes:
        operation: `initialise` draws random weights; `inflate` extends the kernels of a network of
            images along time; `head` replaces the head; `rename` gives the classes other names;
            `stream` and `dtype` change the first convolution and the number format; `finetune`
            trains; `describe` states another input or network of the same weights; `change` is
            anything else that was done outside i3dzoo.
        base_model: Zoo name or Hub repository of the weights before this step, where known.
        before: Stream or number format before this step.
        after: Stream or number format after this step.
        classes: Classes of the head after this step.
        head: How the new head was made.
        method: How kernels were extended along time.
        carried: Rows of the new head that come from the old one.
        label_map: Name of the table that matched the classes; None where their names did.
        seed: Of random numbers.
        dataset: Name of the training data.
        split: Of the dataset.
        recipe: Title of the recipe.
        protocol: How the weights were evaluated.
        metrics: Accuracies in 0..1, such as `top1`.
        preset: Name of the preset that describes the weights.
        multi_label: Whether the head is described as multi-label.
        evaluated_with: The other stream of a two-stream model, if its metrics are of both.
    """

    operation: Operation
    base_model: str | None = None
    before: str | None = None
    after: str | None = None
    classes: int | None = None
    head: Literal["fresh", "zeros", "match", "drop"] | None = None
    method: Literal["average", "center"] | None = None
    carried: int | None = None
    label_map: str | None = None
    seed: int | None = None
    dataset: str | None = None
    split: str | None = None
    recipe: str | None = None
    protocol: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    evaluated_with: Literal["rgb", "flow"] | None = None
    preset: str | None = None
    multi_label: bool | None = None

    def __str__(self) -> str:
        model = f" {self.base_model}" if self.base_model else ""
        base = f" of{model}" if model else ""
        seed = f" (seed {self.seed})" if self.seed is not None else ""
        match self.operation:
            case "initialise":
                return f"Initialised with random weights{seed}"
            case "inflate":
                how = {
                    "average": "repeating each kernel along time, divided by its length",
                    "center": "putting each kernel in the middle frame, between zeros",
                }
                return f"Inflated a 2D network by {how[self.method or 'average']}"
            case "head":
                return self._head(base, seed)
            case "rename":
                return f"Renamed the {self.classes} classes{base}"
            case "stream":
                return (
                    f"Converted{model} from {self.before} to {self.after} by averaging the first "
                    "convolution over its input channels"
                )
            case "dtype":
                return f"Converted{model} from {self.before} to {self.after}"
            case "finetune":
                return self._finetune()
            case "describe" if self.preset is None:
                return (
                    f"Described the head{base} as {'multi' if self.multi_label else 'single'}-label"
                )
            case "describe":
                return f"Described{model} by the input and the network of {self.preset}"
            case "change":
                return f"Changed the weights or classes{base}"

    def _head(self, base: str, seed: str) -> str:
        if self.head == "drop":
            return f"Removed the head{base}"
        head = f"Replaced the head{base} by one for {self.classes} classes"
        if self.head != "match":
            return f"{head} with {'zeros' if self.head == 'zeros' else 'fresh weights'}{seed}"
        fresh = (self.classes or 0) - (self.carried or 0)
        by = f"by {self.label_map}" if self.label_map else "by name"
        return f"{head}: {self.carried} rows carried over {by}, {fresh} fresh{seed}"

    def _finetune(self) -> str:
        base = f" {self.base_model}" if self.base_model else ""
        data = f" on {self.dataset}" if self.dataset else ""
        split = f" split {self.split}" if self.split else ""
        recipe = f" with the recipe '{self.recipe}'" if self.recipe else ""
        text = f"Fine-tuned{base}{data}{split}{recipe}"
        if "top1" not in self.metrics:
            return text
        text += f": top-1 {100 * self.metrics['top1']:.2f}%"
        protocol = f", {self.protocol} protocol" if self.protocol else ""
        other = f", together with {self.evaluated_with}" if self.evaluated_with else ""
        return text + protocol + other
