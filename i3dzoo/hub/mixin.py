"""The Hub's model mixin around a network, behind `InceptionI3d.from_pretrained` and its sisters.

The mixin is wrapped around the network and not inherited by it, so that importing the network does
not import the Hub's client.
"""

import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin

from i3dzoo.checkpoint import read_checkpoint
from i3dzoo.errors import FetchError, I3DZooError
from i3dzoo.hub.address import MAIN, Address
from i3dzoo.hub.client import understood
from i3dzoo.hub.download import pull
from i3dzoo.hub.package import About, prepare, verified
from i3dzoo.hub.upload import push
from i3dzoo.loading import build, to_checkpoint
from i3dzoo.model import InceptionI3d

__all__ = ["HubModel"]


class HubModel(ModelHubMixin, library_name="i3dzoo", pipeline_tag="video-classification"):
    """A network as the Hub's mixin sees it.

    Attributes:
        network: The network.
    """

    def __init__(self, network: InceptionI3d) -> None:
        self.network = network

    @classmethod
    def load(cls, name: str | Path, **options: Any) -> InceptionI3d:
        """Return the network of a repository or folder; failures are i3dzoo's."""
        with understood(str(name), FetchError):
            loaded: HubModel = cls.from_pretrained(str(name), **options)
        return loaded.network

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        tag: str | None = None,
        **about: Any,
    ) -> str:
        """Push as `i3dzoo push` does, and return the address of the commit's page."""
        with tempfile.TemporaryDirectory() as folder:
            facts = About(repository=repo_id, **about)
            package = prepare(to_checkpoint(self.network), Path(folder), facts)
            return push(
                package,
                repo_id,
                private=bool(private),
                message=commit_message,
                token=token,
                branch=branch or MAIN,
                tag=tag,
            ).url

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Save as the mixin does, which removes the old configuration before it is replaced."""
        config = Path(save_directory) / "config.json"
        before = config.read_bytes() if config.is_file() else None
        try:
            saved: str | None = super().save_pretrained(save_directory, **options)
        except I3DZooError:
            if before is not None:
                config.write_bytes(before)
            raise
        return saved

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write what `i3dzoo push` pushes; the mixin finds its config and card there."""
        prepare(to_checkpoint(self.network), save_directory, force=True)

    @classmethod
    def _from_pretrained(  # type: ignore[override] # options are closed here
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        verify: bool = False,
    ) -> "HubModel":
        """Read a folder or a repository, verified."""
        folder = Path(model_id)
        if folder.is_dir():
            path = verified(folder)
        else:
            path = pull(
                Address(model_id, revision or MAIN),
                offline=local_files_only,
                force=force_download,
                verify=verify,
                token=token,
                cache=Path(cache_dir) if cache_dir else None,
            ).weights
        return cls(build(read_checkpoint(path, "canonical")))
