"""`i3dzoo presets`."""

from typing import Any

import msgspec

from i3dzoo.checkpoints import presets
from i3dzoo.cli._catalog import Catalog, Shelf
from i3dzoo.cli._parameters import stems
from i3dzoo.resources import data, package_data


def _read_input(name: str) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(presets.load_preset(name))
    return document


def _read_protocol(name: str) -> dict[str, Any]:
    from i3dzoo.fvd.protocol import load_protocol  # imports PyTorch

    return load_protocol(name).to_dict()


def _read_features(name: str) -> dict[str, Any]:
    from i3dzoo.features.presets import feature_preset  # imports PyTorch

    document: dict[str, Any] = msgspec.to_builtins(feature_preset(name))
    return document


command = Catalog(
    "preset",
    {
        "input": Shelf(
            presets.names,
            lambda name: data("converters") / "presets" / f"{name}.toml",
            _read_input,
            "i3dzoo convert SRC DST --input {}",
        ),
        "features": Shelf(
            lambda: tuple(stems(package_data("features") / "presets", ".yaml")),
            lambda name: package_data("features") / "presets" / f"{name}.yaml",
            _read_features,
            "i3dzoo features VIDEO --model MODEL -o DIR --preset {}",
        ),
        "fvd": Shelf(
            lambda: tuple(stems(package_data("fvd") / "protocols", ".toml")),
            lambda name: package_data("fvd") / "protocols" / f"{name}.toml",
            _read_protocol,
            "i3dzoo fvd REAL FAKE --protocol {}",
        ),
    },
    {"title": "title", "source": "source"},
).group(
    "Show, copy and check presets: of the input and the network of weights (`convert --input`), "
    "of features (`features --preset`), and of FVD (`fvd --protocol`)."
)
