"""Say what a file is if it is not a video, and what to do about it."""

import re
from pathlib import Path
from typing import Final

from i3dzoo.errors import VideoError
from i3dzoo.files import open_input

_PLAYLIST: Final = (
    "it is a playlist, and i3dzoo opens no files or addresses that a file names; pass the video "
    "itself, for example after ffmpeg -i ADDRESS -c copy video.mp4"
)
_AUDIO: Final = "it is audio ({}), without a video; pass the video that it belongs to"
_IMAGE: Final = "it is one image ({}); pass a folder with the images of a clip, or a video"
_ARCHIVE: Final = "it is an archive ({}); extract it first, and pass a video of it"

# What a file starts with, as bytes or as a pattern, and what it then is.
_KINDS: Final[tuple[tuple[bytes, str], ...]] = (
    (rb"(\xef\xbb\xbf)?\s*(#EXTM3U|ffconcat|\[playlist\]|<asx|(<\?xml[^>]*>\s*)?<MPD)", _PLAYLIST),
    (rb"ID3|\xff[\xe2-\xff]", _AUDIO.format("MP3")),
    (rb"fLaC", _AUDIO.format("FLAC")),
    (rb"RIFF....WAVE", _AUDIO.format("WAV")),
    (rb"\x89PNG", _IMAGE.format("PNG")),
    (rb"\xff\xd8\xff", _IMAGE.format("JPEG")),
    (rb"RIFF....WEBP", _IMAGE.format("WebP")),
    (rb"BM....\0\0\0\0", _IMAGE.format("BMP")),
    (rb"II\*\0|MM\0\*", _IMAGE.format("TIFF")),
    (rb"PK\x03\x04|PK\x05\x06", _ARCHIVE.format("ZIP")),
    (rb"Rar!", _ARCHIVE.format("RAR")),
    (rb"7z\xbc\xaf", _ARCHIVE.format("7z")),
    (rb"\x1f\x8b", _ARCHIVE.format("gzip")),
    (rb"\x93NUMPY", "it is a NumPy array; give its name the suffix .npy"),
    (rb"version https://git-lfs", "it is a pointer of Git LFS; run git lfs pull"),
    (
        rb"\s*(<!--.*?-->\s*)?<(!doctype )?html",
        "it is a web page, not the video that it shows; download the video itself",
    ),
    (rb"%PDF", "it is a PDF document"),
)

_BYTES: Final = 512


def explain(path: Path, reason: str) -> str:
    """Return a sentence about a file that FFmpeg cannot read, without its name."""
    with open_input(path, VideoError) as file:
        start = file.read(_BYTES)
    for pattern, meaning in _KINDS:
        if re.match(pattern, start, re.DOTALL | re.IGNORECASE):
            return f"is not a video that FFmpeg can read: {meaning}"
    return f"is not a video that FFmpeg can read ({reason}); check that the file is complete"
