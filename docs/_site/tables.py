"""Tables that are generated from manifests, recipes and presets, so that they stay up to date.

A page has `<!-- table: NAME -->` where a table belongs.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from i3dzoo.checkpoints import presets
from i3dzoo.checkpoints.labels import label_sets, labels
from i3dzoo.checkpoints.metadata import Input
from i3dzoo.features.presets import feature_preset, feature_preset_names
from i3dzoo.features.settings import FeatureSettings
from i3dzoo.network.architecture import Variant
from i3dzoo.training.recipe import Recipe, load_recipe, recipe_names
from i3dzoo.zoo.manifest import Manifest, Source
from i3dzoo.zoo.registry import manifest, names


def zoo() -> str:
    """One row for each published checkpoint."""
    rows = []
    for model in map(manifest, names()):
        metric = model.metrics[0] if model.metrics else None
        top = f"{metric.top1} / {metric.top5}" if metric else ""
        rows.append(
            (
                f"[`{model.name}`](#{model.name})",
                model.stream,
                f"{model.labels} ({model.num_classes})" if model.labels else "no head",
                model.pretraining,
                f"[{top}]({metric.source})" if metric else "",
                model.licence,
            )
        )
    head = ("name", "stream", "classes", "pre-trained on", "top-1 / top-5 in %", "licence")
    return _table(head, rows)


def zoo_models() -> str:
    """A section for each published checkpoint: its input, network and sources."""
    return "\n\n".join(_model(manifest(name)) for name in names())


def label_set_sizes() -> str:
    """The label sets and their numbers of classes."""
    rows = [
        (f"[`{name}`](../manifests/labels/{name}.txt)", str(len(labels(name))))
        for name in label_sets()
    ]
    return _table(("label set", "classes"), rows)


def recipe_keys() -> str:
    """Every key of a recipe by section: type, default and meaning."""
    parts = []
    for field in msgspec.structs.fields(Recipe):
        section = field.type
        if not (inspect.isclass(section) and issubclass(section, msgspec.Struct)):
            continue
        parts.append(f"### {field.name}\n\n{_keys(section, f'{field.name}.')}")
    return "\n\n".join(parts)


def recipe_values() -> str:
    """The keys in which the recipes that ship differ from the defaults."""
    recipes = {name: _flat(load_recipe(name)) for name in recipe_names()}
    default = _flat(Recipe())
    keys = [
        key
        for key in default
        if key != "title" and any(recipe[key] != default[key] for recipe in recipes.values())
    ]
    rows = [(f"`{key}`", *(_code(recipes[name][key]) for name in recipes)) for key in keys]
    return _table(("key", *(f"`{name}`" for name in recipes)), rows)


def recipe_titles() -> str:
    """The recipes that ship, with their titles."""
    return _table(
        ("recipe", "description"),
        [(f"`{name}`", load_recipe(name).title) for name in recipe_names()],
    )


def preset_table() -> str:
    """The presets: input and network of the projects that distribute weights."""
    rows = []
    for name in presets.names():
        preset = presets.preset(name)
        inputs = [(stream, getattr(preset, stream)) for stream in ("rgb", "flow")]
        described = [(stream, clip) for stream, clip in inputs if clip is not None]
        rows.append(
            (
                f"[`{name}`](../converters/presets/{name}.toml)",
                "; ".join(f"{stream}: {_pixels(clip)}" for stream, clip in described),
                _frames(described[0][1]),
                *_network(preset.variant),
            )
        )
    head = ("preset", "pixels become", "frames", "BatchNorm epsilon", "padding", "pooling")
    return _table(head, rows)


def feature_presets() -> str:
    """How each field extracts features, as the presets set it."""
    rows = []
    for name in feature_preset_names():
        preset = feature_preset(name)
        settings = [f"`{key}: {_value(value)}`" for key, value in preset.settings.items()]
        rows.append(
            (
                f"[`{name}`](../../i3dzoo/features/presets/{name}.yaml)",
                f"{preset.title}. {_sentence(preset.note)}",
                " ".join(settings),
            )
        )
    return _table(("preset", "made for", "settings"), rows)


def feature_settings() -> str:
    """Every setting of the features, with its default and its meaning."""
    return _keys(FeatureSettings, "")


TABLES: Mapping[str, Callable[[], str]] = {
    "zoo": zoo,
    "zoo-models": zoo_models,
    "label-sets": label_set_sizes,
    "recipe-keys": recipe_keys,
    "recipe-values": recipe_values,
    "recipes": recipe_titles,
    "presets": preset_table,
    "feature-presets": feature_presets,
    "feature-settings": feature_settings,
}


def _model(model: Manifest) -> str:
    epsilon, padding, pooling = _network(model.variant)
    facts = [
        ("input", f"{_pixels(model.input)}, {_frames(model.input)}, crop {model.input.crop}"),
        ("network", f"BatchNorm epsilon {epsilon}, padding {padding}, pooling {pooling}"),
        ("first published", f"<{model.origin}>"),
        ("checked by", "CRC32C of each tensor" if model.crc32c else "digests of the files"),
        ("sources", "<br>".join(_source(source) for source in model.sources)),
    ]
    if model.note:
        facts.append(("note", model.note))
    file = f"[`manifests/{model.name}.toml`](../manifests/{model.name}.toml)"
    rows = _table(("", ""), [*facts, ("manifest", file)])
    return f"### {model.name} {{ #{model.name} }}\n\n{model.title}.\n\n{rows}"


def _source(source: Source) -> str:
    size = f"{'' if source.exact else 'at most '}{source.total_size / 1e6:.0f} MB"
    return f"{source.title} (layout `{source.layout}`, {source.licence}, {size})"


def _pixels(clip: Input) -> str:
    mean, std = set(clip.mean), set(clip.std)
    if mean == {0.5} and std == {0.5}:
        values = "[-1, 1]"
    elif mean == {0.5} and std == {1.0}:
        values = "p / 255 - 0.5"
    else:
        mean_text, std_text = (
            ", ".join(f"{v:.3g}" for v in part) for part in (clip.mean, clip.std)
        )
        values = f"mean {mean_text}; std {std_text}"
    return f"{values}, BGR" if clip.channels == "bgr" else values


def _frames(clip: Input) -> str:
    return f"{clip.frames} at {f'{clip.fps:g} fps' if clip.fps else 'the native rate'}"


def _network(variant: Variant) -> tuple[str, str, str]:
    return f"{variant.epsilon:g}", f"`{variant.padding}`", f"`{variant.pooling}`"


def _keys(section: type[msgspec.Struct], prefix: str) -> str:
    """A table of the keys of a record: default and meaning."""
    meanings = _attributes(section)
    rows = [
        (f"`{prefix}{key.name}`", f"`{_value(key.default)}`", meanings[key.name])
        for key in msgspec.structs.fields(section)
    ]
    return _table(("key", "default", "meaning"), rows)


def _sentence(text: str | None) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _attributes(section: type) -> dict[str, str]:
    """The meaning of each attribute, from the docstring of its class."""
    block = inspect.cleandoc(section.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", block, re.M)
    return {name: " ".join(text.split()).replace("|", "\\|") for name, text in entries}


def _flat(recipe: Recipe) -> dict[str, Any]:
    flat = {}
    for section, keys in recipe.to_dict().items():
        if isinstance(keys, dict):
            flat.update({f"{section}.{key}": value for key, value in keys.items()})
    return flat


def _code(value: Any) -> str:
    return f"`{_value(value)}`"


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_value(each)}' for key, each in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return str(value)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [tuple(head), *map(tuple, rows)]
    lines.insert(1, ("---",) * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
