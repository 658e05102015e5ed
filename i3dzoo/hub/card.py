"""The model card: YAML front matter for the Hub, and text with examples."""

import html
import re
from typing import Final

import huggingface_hub

from i3dzoo import zoo
from i3dzoo.checkpoints.metadata import Metadata
from i3dzoo.hub.facts import Facts
from i3dzoo.hub.results import Result

# SPDX identifiers, in lower case, that are identifiers of the Hub too; others are "other" there.
_LICENCES: Final = re.compile(
    r"apache-2\.0|mit|bsd-[23]-clause|bsl-1\.0|cc0-1\.0|cc-by-[234]\.0|cc-by-sa-[34]\.0|"
    r"cc-by-nc-[234]\.0|cc-by-nd-4\.0|cc-by-nc-(nd|sa)-4\.0|isc|mpl-2\.0|unlicense|zlib"
)
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


def write_card(metadata: Metadata, facts: Facts, extras: tuple[str, ...]) -> str:
    """Return the text of README.md; `extras` are the names of pictures and other formats."""
    name = (facts.repository or "model").rpartition("/")[2]
    parts = [
        f"---\n{_front_matter(metadata, facts, name)}\n---",
        f"# {name}",
        _summary(metadata, facts),
        _usage(metadata, facts.repository or "PATH/TO/model.safetensors"),
        _input(metadata),
        _classes(metadata),
        _result_table(facts.results),
        *(f"![{_CAPTIONS[extra]}]({extra})" for extra in extras if extra in _CAPTIONS),
        _file_table(extras),
        _origin(metadata, facts),
        f"## Citation\n\n```bibtex\n{_CITATION}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(metadata: Metadata, facts: Facts, name: str) -> str:
    licence = facts.licence.lower()
    known = _LICENCES.fullmatch(licence)
    evaluations = [
        huggingface_hub.EvalResult(
            task_type="video-classification",
            dataset_type=result.dataset,
            dataset_name=result.title,
            dataset_split=result.split,
            metric_type=kind,
            metric_name=metric,
            metric_value=value,
            source_name="Published result" if result.source else None,
            source_url=result.source,
        )
        for result in facts.results
        for kind, metric, value in (
            ("accuracy", "Top-1 accuracy (%)", result.top1),
            ("accuracy", "Top-5 accuracy (%)", result.top5),
            ("mean_average_precision", "Mean average precision (%)", result.mean_ap),
        )
        if value is not None
    ]
    card = huggingface_hub.ModelCardData(
        library_name="i3dzoo",
        pipeline_tag="video-classification",
        license=licence if known else "other",
        license_name=None if known else licence,
        datasets=list(facts.datasets) or None,
        base_model=facts.base_model,
        metrics=list(dict.fromkeys(item.metric_type for item in evaluations)) or None,
        tags=["i3d", "action-recognition", "video-classification", metadata.stream],
        model_name=name if evaluations else None,
        eval_results=evaluations or None,
    )
    return card.to_yaml()


def _summary(metadata: Metadata, facts: Facts) -> str:
    stream = {"rgb": "RGB frames", "flow": "optical flow"}[metadata.stream]
    paper = "[Quo Vadis, Action Recognition?](https://arxiv.org/abs/1705.07750)"
    several = ", several of which a clip can have at once" if metadata.multi_label else ""
    text = f"I3D ({paper}) on {stream}, {metadata.num_classes} classes{several}"
    if metadata.zoo:
        return f"{text}: {zoo.manifest(metadata.zoo).title}. All tensors are as published."
    if facts.untrained_head:
        text += ". The head has not been trained on these classes: fine-tune it first"
    base = f" Made from the published checkpoint `{facts.base}`." if facts.base else ""
    return f"{text}.{base}"


def _usage(metadata: Metadata, repository: str) -> str:
    channels = len(metadata.input.mean)
    frames = metadata.input.frames
    result = "print(model.labels[int(logits.argmax())])"
    if metadata.scores == "sigmoid":
        result = "print(dict(zip(model.labels, logits.sigmoid()[0].tolist())))"
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
{result}
```"""


def _input(metadata: Metadata) -> str:
    network = f"The network has {metadata.variant}."
    return f"## Input\n\n{metadata.input}\n\n{network} The weight file contains this description."


def _classes(metadata: Metadata) -> str:
    names = ", ".join(html.escape(name, quote=False) for name in metadata.labels or ())
    return f"""## Classes

<details>
<summary>All {metadata.num_classes}, in the order of the logits</summary>

{names}

</details>"""


def _result_table(results: tuple[Result, ...]) -> str:
    if not results:
        return ""
    multi_label = any(result.mean_ap is not None for result in results)
    names = ("mAP %",) if multi_label else ("top-1 %", "top-5 %")
    heads = ("dataset", "split", *names, "videos")
    lines = ["## Results", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for result in results:
        title = f"[{result.title}]({result.source})" if result.source else result.title
        values = (result.mean_ap,) if multi_label else (result.top1, result.top5)
        cells = ["" if value is None else f"{value:.1f}" for value in values]
        cells = [title, result.split, *cells, str(result.videos or "")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _file_table(extras: tuple[str, ...]) -> str:
    onnx = "| [`model.onnx`](model.onnx) | the same network |\n" if "model.onnx" in extras else ""
    return f"""## Files

| file | content |
|---|---|
| [`model.safetensors`](model.safetensors) | the weights, metadata, a checksum of each tensor |
| [`config.json`](config.json), [`labels.txt`](labels.txt) | architecture and classes |
| [`preprocessor_config.json`](preprocessor_config.json) | the input, as transformers has it |
{onnx}| [`SHA256SUMS`](SHA256SUMS) | for `sha256sum --check SHA256SUMS` |"""


def _origin(metadata: Metadata, facts: Facts) -> str:
    lines = ["## Origin and licence", "", f"- Licence of these weights: {facts.licence}"]
    if facts.base:
        manifest = zoo.manifest(facts.base)
        lines.append(
            f"- Published checkpoint: `{facts.base}`, {manifest.title}, {manifest.licence}, "
            f"{manifest.origin}"
        )
    source = metadata.source
    lines.append(f"- Source file: {source.layout} layout, sha256 `{source.sha256}`")
    lines += [f"- {step}" for step in metadata.history]
    return "\n".join(lines)
