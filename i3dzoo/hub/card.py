"""The model card: front matter by which the Hub finds the repository, and text to copy from."""

import html
import re
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
_TRAINING: Final = ("fine-tuned", "trained")  # first words of steps of the history
_CITATION: Final = """@inproceedings{carreira2017quo,
  title     = {Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset},
  author    = {Carreira, Jo{\\~a}o and Zisserman, Andrew},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2017}
}"""
_CAPTIONS: Final = {
    "training_curves.png": "Training curves",
    "confusion_matrix.png": "Confusion matrix",
}


def datasets_of(metadata: Metadata) -> tuple[str, ...]:
    """Return the data set that the weights were last trained on, where it is a known one.

    It is that of the classes, unless the head was made for them and not trained since.
    """
    names = metadata.labels
    if has_fresh_head(metadata):
        from i3dzoo import zoo

        base = metadata.base
        names = labels(zoo.manifest(base).labels) if base in zoo.names() else None
    return tuple(name for name in label_sets() if labels(name) == names)


def has_fresh_head(metadata: Metadata) -> bool:
    """Whether the head was changed and not trained since, as the history tells."""
    steps = [step.split(maxsplit=1)[0] for step in metadata.history]
    trained = max((n for n, word in enumerate(steps) if word in _TRAINING), default=-1)
    return "head" in steps[trained + 1 :]


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
        _classes(metadata),
        _result_table(results),
        *(f"![{_CAPTIONS[each]}]({each})" for each in extras if each in _CAPTIONS),
        _file_table(extras),
        _origin(metadata, licence, base),
        f"## Citation\n\n```bibtex\n{_CITATION}\n```",
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
        base_model=about.base_model or _began_with(metadata),
        metrics=["accuracy"] if evaluations else None,
        tags=["i3d", "action-recognition", "video-classification", metadata.stream],
        model_name=name if evaluations else None,
        eval_results=evaluations or None,
    )


def _began_with(metadata: Metadata) -> str | None:
    """Return the repository that the weights were last fine-tuned from, as the history tells."""
    found = [re.match(r"fine-tuned from (\S+/\S+) on ", step) for step in metadata.history]
    return next((each.group(1) for each in reversed(found) if each), None)


def _summary(metadata: Metadata, base: str | None) -> str:
    stream = {"rgb": "RGB frames", "flow": "optical flow"}[metadata.stream]
    text = (
        f"I3D ([Quo Vadis, Action Recognition?]({_PAPER})) on {stream}, "
        f"{metadata.num_classes} classes"
    )
    if metadata.zoo:
        from i3dzoo import zoo

        return f"{text}: {zoo.manifest(metadata.zoo).title}, as published, to the last tensor."
    if has_fresh_head(metadata):
        text += ", whose head has not been trained on them: to be fine-tuned"
    return f"{text}. Made from the published checkpoint `{base}`." if base else f"{text}."


def _classes(metadata: Metadata) -> str:
    names = ", ".join(html.escape(name, quote=False) for name in metadata.labels or ())
    return f"""## Classes

<details>
<summary>All {metadata.num_classes}, in the order of the logits</summary>

{names}

</details>"""


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
    onnx = "| [`model.onnx`](model.onnx) | the same network |\n" if "model.onnx" in extras else ""
    return f"""## Files

| file | content |
|---|---|
| [`model.safetensors`](model.safetensors) | the weights, their description, a checksum of each |
| [`config.json`](config.json), [`labels.txt`](labels.txt) | architecture and classes |
| [`preprocessor_config.json`](preprocessor_config.json) | the input, as transformers has it |
{onnx}| [`SHA256SUMS`](SHA256SUMS) | `sha256sum --check SHA256SUMS` |"""


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
