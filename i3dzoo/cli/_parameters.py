"""Types of options and arguments: what they accept, and what a shell completes for them.

Completion runs at each press of the Tab key, so names are read from the folders of data, and
nothing here imports torch or NumPy.
"""

from collections.abc import Callable, Iterable, Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from i3dzoo.devices import parse_device, suggested_devices
from i3dzoo.errors import OptionError
from i3dzoo.resources import data, package_data


class Names(click.ParamType[str]):
    """A text for which a shell completes names, and files where no name fits.

    Any text is accepted: whether it is a name or a file is checked where it is used.
    """

    def __init__(
        self, name: str, names: Callable[[], Iterable[str]], *, files: bool = False
    ) -> None:
        self.name = name
        self._names, self._files = names, files

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's
        param: click.Parameter,  # noqa: ARG002 - click's
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the names that begin as typed, regardless of case."""
        typed = incomplete.lower()
        names = [name for name in self._names() if name.lower().startswith(typed)]
        if not names and self._files:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(name) for name in names]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002 - click's
        """Return the text as it is."""
        return value


class DeviceType(Names):
    """The name of a device; whether this machine has the device is checked where it is used."""

    def __init__(self) -> None:
        super().__init__("device", suggested_devices)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name if it is one of a device."""
        try:
            return parse_device(value)
        except OptionError as error:
            self.fail(str(error), param, ctx)


def stems(folder: Traversable, suffix: str) -> Iterator[str]:
    """Return the names of the files of a folder that have a suffix, without it."""
    names = sorted(entry.name for entry in folder.iterdir())
    return (name.removesuffix(suffix) for name in names if name.endswith(suffix))


def _models() -> Iterator[str]:
    return stems(data("manifests"), ".toml")


def _kept() -> Iterator[str]:
    """Yield the names of what is kept, by the names of folders: sizes would take long."""
    from i3dzoo.zoo.registry import cache_dir

    for folder, suffix in ((cache_dir() / "models", ".safetensors"), (_hub_cache(), "")):
        if folder.is_dir():
            for name in stems(folder, suffix):
                if suffix or name.startswith("models--"):
                    yield name.removeprefix("models--").replace("--", "/", 1)


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _endpoints() -> tuple[str, ...]:
    from i3dzoo.network.architecture import ENDPOINTS, POOLED

    return (POOLED, "logits", *ENDPOINTS)


MODEL: Final = Names("model", _models, files=True)
DEVICE: Final = DeviceType()
LAYOUT: Final = Names("layout", lambda: stems(data("converters"), ".toml"), files=True)
PRESET: Final = Names("preset", lambda: stems(data("converters") / "presets", ".toml"), files=True)
LABELS: Final = Names("labels", lambda: stems(data("manifests") / "labels", ".txt"), files=True)
RECIPE: Final = Names(
    "recipe", lambda: stems(package_data("training") / "recipes", ".yaml"), files=True
)
FVD_PROTOCOL: Final = Names(
    "protocol", lambda: stems(package_data("fvd") / "protocols", ".toml"), files=True
)
TEST_PROTOCOL: Final = Names("protocol", lambda: ("center", "tao", "paper", "multi:10x3"))
FEATURE_PRESET: Final = Names(
    "preset", lambda: stems(package_data("features") / "presets", ".yaml"), files=True
)
ENDPOINT: Final = Names("endpoint", _endpoints)
KEPT: Final = Names("name", _kept)
