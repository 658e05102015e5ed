"""Find the data that a user names: a path, or a data set on the Hub."""

from pathlib import Path

from i3dzoo.hub.dataset import is_dataset, pull_dataset
from i3dzoo.progress import SILENT, Progress
from i3dzoo.video.sources import DATASET_SUFFIXES


def find_data(data: str | Path, progress: Progress = SILENT) -> Path:
    """Return the path of data; `hf://datasets/USER/NAME[@REVISION]` is downloaded.

    Raises:
        FetchError: The data set does not exist, cannot be read, or has no videos and no lists.
    """
    if is_dataset(data) and not Path(data).exists():
        return pull_dataset(data, DATASET_SUFFIXES, progress=progress)
    return Path(data)
