"""Bounds on what videos, arrays and descriptions may ask for, each with its reason.

A file of a few bytes can declare a frame, a duration or a clip of any size. These bounds are above
everything that is used in practice, and are checked before memory is taken.
"""

from typing import Final

MAX_PIXELS: Final = 1 << 25
"""Largest frame, as it is stored and after resizing: 8K UHD has 33.2 million pixels."""

MAX_FRAMES: Final = 2_592_000
"""Most frames of a video, and most samples at the network's rate: a day at 30 fps."""

MAX_SECONDS_A_FRAME: Final = 20.0
"""Longest average time from frame to frame; above it, a frame rate is broken, not a slideshow's."""

MAX_FPS: Final = 1000.0
"""Highest rate that a video is resampled to."""

MAX_ANIMATION_PIXELS: Final = 1 << 31
"""Most pixels of all frames of a GIF, APNG or WebP animation: 1,000 frames of 1920x1080.

A frame of their canvas takes a few bytes, and each is drawn completely.
"""

MAX_IMAGE_BYTES: Final = 1 << 28
"""Largest image file: uncompressed, 8 bytes for each of `MAX_PIXELS`."""

MAX_EDGE: Final = 2048
"""Longest crop and longest short side of a network's input; I3D has 224 and 256."""

MAX_CLIP_FRAMES: Final = 4096
"""Most frames of a network's clip; I3D has 64."""

MAX_CLIP_PIXELS: Final = 1 << 25
"""Most pixels of a network's clip, frames x crop x crop: ten times 64 x 224 x 224."""

MAX_WHOLE_PIXELS: Final = 1 << 27
"""Most pixels of a whole video as one clip: UCF101's longest has 1,776 x 224 x 224."""
