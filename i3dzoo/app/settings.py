"""What the person who starts the page decides."""

import ipaddress
from dataclasses import dataclass

from i3dzoo.devices import Device
from i3dzoo.engines.base import EngineName
from i3dzoo.onnx.options import Precision


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a page.

    Attributes:
        host: Address to listen on. Addresses other than loopback can be reached by other people,
            who may then name no file of this machine.
        port: Port to listen on; 0 takes any free one.
        model: The model that is chosen at first.
        max_upload: Most bytes of one upload, all its files together.
        max_stored: Most bytes that are kept at once, of all uploads and what is made from them.
        max_seconds: Longest video.
        max_flow_seconds: Longest video that optical flow is computed of.
        keep_seconds: Uploads are deleted after this time, if not before.
        engine: What runs the networks.
        precision: The precision of the computation; None is the engine's own.
        device: Where PyTorch runs them.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    model: str = "rgb_scratch"
    max_upload: int = 500 << 20
    max_stored: int = 4 << 30
    max_seconds: float = 600.0
    max_flow_seconds: float = 60.0
    keep_seconds: int = 3600
    engine: EngineName = "auto"
    precision: Precision | None = None
    device: Device = "auto"

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the page."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
