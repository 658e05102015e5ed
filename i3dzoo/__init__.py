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

from i3dzoo.version import __version__

if TYPE_CHECKING:
    from i3dzoo.checkpoints.checkpoint import Checkpoint, write_checkpoint
    from i3dzoo.checkpoints.head import change_head
    from i3dzoo.checkpoints.inflation import deflate, inflate
    from i3dzoo.checkpoints.joint import write_joint
    from i3dzoo.checkpoints.metadata import Input, Metadata
    from i3dzoo.checkpoints.streams import change_dtype, change_stream
    from i3dzoo.errors import I3DZooError
    from i3dzoo.evaluation.run import evaluate
    from i3dzoo.exporters.export import export
    from i3dzoo.features.extraction import extract
    from i3dzoo.fetch.find import open_checkpoint
    from i3dzoo.fetch.pull import pull
    from i3dzoo.metrics import I3DFeatures
    from i3dzoo.predict import predict_video
    from i3dzoo.pretrained import InceptionI3d, load
    from i3dzoo.training.finetune import finetune
    from i3dzoo.zoo.registry import list_models

__all__ = [
    "Checkpoint",
    "I3DFeatures",
    "I3DZooError",
    "InceptionI3d",
    "Input",
    "Metadata",
    "__version__",
    "change_dtype",
    "change_head",
    "change_stream",
    "deflate",
    "evaluate",
    "export",
    "extract",
    "finetune",
    "inflate",
    "list_models",
    "load",
    "open_checkpoint",
    "predict_video",
    "pull",
    "write_checkpoint",
    "write_joint",
]

_HOME = {
    "Checkpoint": "checkpoints.checkpoint",
    "I3DFeatures": "metrics",
    "I3DZooError": "errors",
    "InceptionI3d": "pretrained",
    "Input": "checkpoints.metadata",
    "Metadata": "checkpoints.metadata",
    "change_dtype": "checkpoints.streams",
    "change_head": "checkpoints.head",
    "change_stream": "checkpoints.streams",
    "deflate": "checkpoints.inflation",
    "evaluate": "evaluation.run",
    "export": "exporters.export",
    "extract": "features.extraction",
    "finetune": "training.finetune",
    "inflate": "checkpoints.inflation",
    "list_models": "zoo.registry",
    "load": "pretrained",
    "predict_video": "predict",
    "pull": "fetch.pull",
    "open_checkpoint": "fetch.find",
    "write_checkpoint": "checkpoints.checkpoint",
    "write_joint": "checkpoints.joint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'i3dzoo' has no attribute {name!r}")
    return getattr(importlib.import_module(f"i3dzoo.{_HOME[name]}"), name)
