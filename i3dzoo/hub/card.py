"""The model card: front matter by which the Hub finds the repository, and text to copy from."""

from typing import TYPE_CHECKING, Final

from i3dzoo.hub.results import Result
from i3dzoo.labels import label_sets, labels
from i3dzoo.metadata import Metadata

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

    from i3dzoo.hub.package import About

__all__ = ["datasets_of", "write_card"]

_PAPER: Final = "https://arxiv.org/abs/1705.07750"
# The identifiers of the Hub that are SPDX identifiers in small letters; others are "other" there.
_LICENCES: Final = frozenset(
    [
        "apache-2.0",
        "mit",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsl-1.0",
        "cc0-1.0",
        "cc-by-2.0",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nd-4.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-4.0",
        "isc",
        "mpl-2.0",
        "unlicense",
        "zlib",
    ]
)
_CAPTIONS: Final = {
    "training_curves.png": "Training curves",
    "confusion_matrix.png": "Confusion matrix",
}


def datasets_of(metadata: Metadata) -> tuple[str, ...]:
    """Return the data set whose classes these are, where it is a known one."""
    return tuple(name for name in label_sets() if labels(name) == metadata.labels)


def write_card(
    metadata: Metadata,
    about: "About",
    licence: str,
    base: str | None,
    results: tuple[Result, ...],
    extras: tuple[str, ...],
) -> str:
    """Return the text of README.md.

    Args:
        metadata: Of the weights.
        about: What they do not say.
        licence: SPDX identifier.
        base: Zoo name of the published checkpoint that they are or began as.
        results: For the model index.
        extras: Names of pictures and other formats in the repository.
    """
    name = (about.repository or "model").rpartition("/")[2]
    data = _front_matter(metadata, about, licence, results, name)
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {name}",
        _summary(metadata, base),
        _usage(metadata, about.repository or "PATH/TO/model.safetensors"),
        f"## Input\n\n{metadata.input}\n\nThe weight file itself says so.",
        _result_table(results),
        *(f"![{_CAPTIONS[each]}]({each})" for each in extras if each in _CAPTIONS),
        _file_table(extras),
        _origin(metadata, licence, base),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(
    metadata: Metadata, about: "About", licence: str, results: tuple[Result, ...], name: str
) -> "ModelCardData":
    from huggingface_hub import EvalResult, ModelCardData

    known = licence.lower() in _LICENCES
    evaluations = [
        EvalResult(
            task_type="video-classification",
            dataset_type=each.dataset,
            dataset_name=each.title,
            dataset_split=each.split,
            metric_type="accuracy",
            metric_name=f"Top-{rank} accuracy (%)",
            metric_value=value,
            source_name="Published result" if each.source else None,
            source_url=each.source,
        )
        for each in results
        for rank, value in ((1, each.top1), (5, each.top5))
        if value is not None
    ]
    return ModelCardData(
        library_name="i3dzoo",
        pipeline_tag="video-classification",
        license=licence.lower() if known else "other",
        license_name=None if known else licence.lower(),
        datasets=list(about.datasets or datasets_of(metadata)) or None,
        base_model=about.base_model,
        metrics=["accuracy"] if evaluations else None,
        tags=["i3d", "action-recognition", "video-classification", metadata.stream],
        model_name=name if evaluations else None,
        eval_results=evaluations or None,
    )


def _summary(metadata: Metadata, base: str | None) -> str:
    stream = {"rgb": "RGB frames", "flow": "optical flow"}[metadata.stream]
    text = (
        f"I3D ([Quo Vadis, Action Recognition?]({_PAPER})) on {stream}, "
        f"{metadata.num_classes} classes"
    )
    if metadata.zoo:
        from i3dzoo import zoo

        return f"{text}: {zoo.manifest(metadata.zoo).title}, as published, to the last tensor."
    return f"{text}, trained from the published checkpoint `{base}`." if base else f"{text}."


def _usage(metadata: Metadata, repository: str) -> str:
    channels = len(metadata.input.mean)
    frames = metadata.input.frames
    command = f"\ni3dzoo predict clip.mp4 --model {repository}" if channels == 3 else ""
    return f"""## Use

```sh
pip install i3dzoo{command}
i3dzoo convert {repository} tao.pt --to piergiaj   # or another layout
```

```python
import i3dzoo
import torch

model = i3dzoo.load("{repository}")
frames = torch.randint(0, 256, ({frames}, 256, 340, {channels}), dtype=torch.uint8)  # [T, H, W, C]
logits = model(model.preprocess(frames)[None])  # [1, {metadata.num_classes}]
print(model.labels[int(logits.argmax())])
```"""


def _result_table(results: tuple[Result, ...]) -> str:
    if not results:
        return ""
    lines = [
        "## Results",
        "",
        "| data set | split | top-1 % | top-5 % | videos |",
        "|---" * 5 + "|",
    ]
    for each in results:
        title = f"[{each.title}]({each.source})" if each.source else each.title
        top5 = "" if each.top5 is None else f"{each.top5:.1f}"
        lines.append(f"| {title} | {each.split} | {each.top1:.1f} | {top5} | {each.videos or ''} |")
    return "\n".join(lines)


def _file_table(extras: tuple[str, ...]) -> str:
    onnx = "| `model.onnx` | the same network |\n" if "model.onnx" in extras else ""
    return f"""## Files

| file | content |
|---|---|
| `model.safetensors` | the weights, their description, and a checksum of every tensor |
| `config.json`, `labels.txt` | architecture and classes |
| `preprocessor_config.json` | the input, by the convention of transformers |
{onnx}| `SHA256SUMS` | `sha256sum --check SHA256SUMS` |"""


def _origin(metadata: Metadata, licence: str, base: str | None) -> str:
    lines = ["## Origin and licence", "", f"- Licence of these weights: {licence}"]
    if base:
        from i3dzoo import zoo

        manifest = zoo.manifest(base)
        lines.append(
            f"- Published checkpoint: `{base}`, {manifest.title}, {manifest.licence}, "
            f"{manifest.origin}"
        )
    source = metadata.source
    lines.append(f"- Source file: {source.layout} layout, sha256 `{source.sha256}`")
    lines += [f"- {step}" for step in metadata.history]
    return "\n".join(lines)
