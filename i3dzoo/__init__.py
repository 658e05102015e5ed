"""I3D weights in every layout: convert, verify, pull, run.

```python
import i3dzoo

model = i3dzoo.load("rgb_scratch")            # a zoo name or a file of any layout
logits = model(clip)                          # float [B, 3, T, H, W] as model.metadata.input says
```

Names are imported when they are first used, so `import i3dzoo` is instant.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from i3dzoo.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
    from i3dzoo.errors import I3DZooError
    from i3dzoo.head import change_head
    from i3dzoo.joint import write_joint
    from i3dzoo.loading import load
    from i3dzoo.metadata import Input, Metadata
    from i3dzoo.model import InceptionI3d
    from i3dzoo.predict import predict_video
    from i3dzoo.surgery import change_dtype, change_stream
    from i3dzoo.zoo import pull

__version__ = "0.1.0"

__all__ = [
    "Checkpoint",
    "I3DZooError",
    "InceptionI3d",
    "Input",
    "Metadata",
    "__version__",
    "change_dtype",
    "change_head",
    "change_stream",
    "load",
    "predict_video",
    "pull",
    "read_checkpoint",
    "write_checkpoint",
    "write_joint",
]

_HOME = {
    "Checkpoint": "checkpoint",
    "I3DZooError": "errors",
    "InceptionI3d": "model",
    "Input": "metadata",
    "Metadata": "metadata",
    "change_dtype": "surgery",
    "change_head": "head",
    "change_stream": "surgery",
    "load": "loading",
    "predict_video": "predict",
    "pull": "zoo",
    "read_checkpoint": "checkpoint",
    "write_checkpoint": "checkpoint",
    "write_joint": "joint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'i3dzoo' has no attribute {name!r}")
    return getattr(importlib.import_module(f"i3dzoo.{_HOME[name]}"), name)
