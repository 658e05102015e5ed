"""A page that is served once, and a tab of a browser that shows it."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.app_page import Served, browse, serve
from helpers.exported import noisy

from i3dzoo.checkpoints.checkpoint import write_checkpoint


@dataclass
class Shown:
    """A tab, its server, the addresses that it requested, and what its console said."""

    tab: Any
    served: Served
    requests: list[str]
    console: list[str]


@pytest.fixture(scope="session")
def served(rgb_scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page with rgb_scratch."""
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("the extra app is not installed")
    # PyTorch starts faster than engines that compile
    options = ("--engine", "torch", "--max-upload", "20", "--max-seconds", "20")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("I3DZOO_CACHE", str(rgb_scratch.parents[1]))
        with serve(tmp_path_factory.mktemp("server"), *options) as served:
            yield served


@pytest.fixture(scope="session")
def shown(
    served: Served, test_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shown]:
    """The page in a browser; its tests build on a real clip that the first of them drops."""
    assert test_data.is_dir()
    with browse(tmp_path_factory.mktemp("profile")) as browser:
        tab = browser.pages[0]
        requests: list[str] = []
        console: list[str] = []
        browser.on("request", lambda request: requests.append(request.url))
        tab.on("console", lambda entry: console.append(entry.text))
        tab.on("pageerror", lambda error: console.append(f"uncaught: {error}"))
        tab.set_default_timeout(90_000)
        tab.goto(served.address)
        yield Shown(tab, served, requests, console)


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Networks of random weights for RGB and for flow, with clips of 16 frames of 32x32."""
    folder = tmp_path_factory.mktemp("models")
    rgb, flow = (
        write_checkpoint(folder / f"{stream}.safetensors", noisy(stream, 5))
        for stream in ("rgb", "flow")
    )
    return rgb, flow
