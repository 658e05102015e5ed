"""torchvision's networks. Its wheel on the package index is built for CUDA.

Beside a PyTorch for CPUs, its operators do not load, and the import fails where it describes them;
its networks do not need them.
"""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch

_OPERATORS = "torchvision._meta_registrations"


def torchvision_models() -> Any:
    """Return `torchvision.models`, or skip the test if torchvision is not installed."""
    if not torch.cuda.is_available():
        sys.modules.setdefault(_OPERATORS, ModuleType(_OPERATORS))
    models = pytest.importorskip("torchvision.models", exc_type=ImportError)
    pytest.importorskip("torchvision.models.video", exc_type=ImportError)
    return models
