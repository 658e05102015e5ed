"""The worst predictions of a run or of an evaluation, with frames of their videos."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from i3dzoo.errors import I3DZooError, OptionError
from i3dzoo.evaluation.metrics import evaluate_logits
from i3dzoo.evaluation.prediction_file import read_predictions
from i3dzoo.evaluation.predictions import PredictionHeader
from i3dzoo.report.mistakes import WorstPrediction, worst_predictions
from i3dzoo.report.run_folder import PREDICTIONS, RUN, read_run
from i3dzoo.report.thumbnails import film_strip
from i3dzoo.video import Channels
from i3dzoo.video.index_file import INDEX_NAME, read_index, video_folder

PAGE: Final = 12


@dataclass(frozen=True)
class Mistakes:
    """The wrong predictions of a file, worst first.

    Attributes:
        header: What was predicted, and by which model.
        wrong: The wrong predictions.
        videos: How many videos were predicted.
        labels: Names of the classes, by number.
        folders: Where the videos may be.
        channels: What the videos hold.
    """

    header: PredictionHeader
    wrong: tuple[WorstPrediction, ...]
    videos: int
    labels: tuple[str, ...]
    folders: tuple[Path, ...]
    channels: Channels = "rgb"

    def label(self, index: int) -> str:
        """Return the name of a class."""
        return self.labels[index] if index < len(self.labels) else f"class {index}"

    def find(self, video: str) -> Path:
        """Return the file of a video; of a segment, the whole video."""
        names = (video, video.partition("#t=")[0])
        places = [folder / name for folder in self.folders for name in names]
        return next((place for place in places if place.exists()), Path(video))

    def picture(self, video: str) -> tuple[bytes, str]:
        """Return frames of a video as JPEG, and the reason if there are none."""
        try:
            return film_strip(self.find(video), self.channels), ""
        except I3DZooError as error:
            return b"", str(error)


def read_mistakes(path: Path, data: Path | None) -> Mistakes:
    """Read a file of predictions, or that of a run folder.

    Args:
        path: The folder of a run, or a file of predictions.
        data: The prepared dataset, or the folder of its videos; None takes that of the run.

    Raises:
        OptionError: Videos have several classes at once, so right and wrong are not defined.
        I3DZooError: A file cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    labels: tuple[str, ...] = ()
    channels: Channels = "rgb"
    if path.is_dir() or (folder / RUN).is_file():
        run = read_run(folder)
        labels = run.labels
        channels = "xy" if run.stream == "flow" else "rgb"
        data = data or (Path(run.data) if run.data else None)
    predictions = read_predictions(folder / PREDICTIONS if path.is_dir() else path)
    if predictions.labels.ndim > 1:
        raise OptionError(
            f"{path}: holds videos with several classes at once, which are not right or wrong as a "
            "whole; i3dzoo evaluate gives their average precision"
        )
    if predictions.videos:
        evaluate_logits(predictions.logits, predictions.labels)  # which refuses what makes no sense
    if not labels and data is not None and (data / INDEX_NAME).is_file():
        labels = read_index(data).classes
    folders = ((video_folder(data), data) if data else ()) + (folder,)
    return Mistakes(
        predictions.header,
        tuple(worst_predictions(predictions, len(predictions.videos))),
        len(predictions.videos),
        labels,
        folders,
        channels,
    )
