"""FVD of two folders that were uploaded."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from i3dzoo.app.sessions import Session, receive
from i3dzoo.errors import OptionError
from i3dzoo.fvd import Embedder, FVDResult, Protocol, compute_fvd
from i3dzoo.progress import SILENT, Progress
from i3dzoo.text import listing
from i3dzoo.video.series import VIDEO_SUFFIXES

MAX_FILES: Final = 4096
NAMES: Final = ("real", "generated")


def place(session: Session, name: str, files: Sequence[str]) -> int:
    """Move the videos of an uploaded folder into the session, and return their number.

    Args:
        session: The page.
        name: `real` or `generated`; the videos that this set had are deleted.
        files: The files that Gradio received; those that are not videos are deleted.

    Raises:
        OptionError: There is no video, or there are too many.
    """
    folder = session.part(name)
    paths = [Path(file) for file in files]
    videos = [path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES]
    kept = videos if len(videos) <= MAX_FILES else []
    for path in paths:
        if path not in kept:
            receive(path, folder / path.name).unlink()
    if len(videos) > MAX_FILES:
        raise OptionError(
            f"the {name} set has {len(videos)} videos; the page takes at most {MAX_FILES}, and the "
            "command i3dzoo fvd any number"
        )
    if not videos:
        raise OptionError(
            f"the {name} set has no videos, but {listing([path.name for path in paths])}; videos "
            "as folders of images are compared by the command i3dzoo fvd"
        )
    for number, path in enumerate(kept):
        # subfolders may hold files of the same name
        receive(path, folder / f"{number:05d}_{path.name}")
    return len(kept)


def compare(
    session: Session,
    protocol: Protocol,
    embedder: Callable[[], Embedder],
    progress: Progress = SILENT,
) -> FVDResult:
    """Compute the FVD of the two sets of a session.

    Raises:
        OptionError: A set is missing.
        I3DZooError: See `compute_fvd`.
    """
    real, generated = (session.folder / name for name in NAMES)
    for folder in (real, generated):
        if not folder.is_dir() or not any(folder.iterdir()):
            raise OptionError(f"no {folder.name} videos are uploaded: drop a folder of videos")
    return compute_fvd(real, generated, protocol, embedder=embedder, progress=progress)
