"""The Hub's model mixin, wrapped around a checkpoint, for `InceptionI3d.from_pretrained` and so on.

The network does not inherit from the mixin, so that importing the network does not import
huggingface_hub.
"""

import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin

from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint
from i3dzoo.errors import I3DZooError
from i3dzoo.hub.address import MAIN, WEIGHTS, Address
from i3dzoo.hub.download import pull
from i3dzoo.hub.facts import About
from i3dzoo.hub.package import prepare
from i3dzoo.hub.sums import verify_folder
from i3dzoo.hub.upload import push


class HubModel(ModelHubMixin, library_name="i3dzoo", pipeline_tag="video-classification"):
    """A checkpoint with the methods of the Hub's model mixin."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        verify: bool = False,
    ) -> Checkpoint:
        """Return the checkpoint of a folder or a repository, after verifying its files.

        The mixin's own `from_pretrained` downloads config.json without verifying it.
        """
        path = Path(name) / WEIGHTS
        if Path(name).is_dir():
            verify_folder(Path(name))
        else:
            path = pull(
                Address(str(name), revision or MAIN),
                offline=local_files_only,
                force=force_download,
                verify=verify,
                token=token,
                cache=Path(cache_dir) if cache_dir else None,
            ).weights
        return read_checkpoint(path, "canonical")

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
        """Push in one commit, as `i3dzoo push` does, and return the address of its page."""
        with tempfile.TemporaryDirectory() as folder:
            package = prepare(self.checkpoint, Path(folder), About(repository=repo_id, **about))
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
        """Save into a folder; on failure, restore the configuration that the mixin removes."""
        config = Path(save_directory) / "config.json"
        old = config.read_bytes() if config.is_file() else None
        try:
            url: str | None = super().save_pretrained(save_directory, **options)
        except I3DZooError:
            if old is not None:
                config.write_bytes(old)
            raise
        return url

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write the same files as `i3dzoo push`, including the mixin's configuration and card."""
        prepare(self.checkpoint, save_directory, force=True)
