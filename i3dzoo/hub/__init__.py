"""The Hugging Face Hub: repositories that describe themselves, and are verified on their way.

The Hub's own client checks the size of what it downloads and nothing else. Here every file is
compared with the digest that the Hub lists for it and with the repository's SHA256SUMS before it is
used, and a checkpoint with its own checksum of every tensor.

Nothing here imports huggingface_hub before it is needed. Its settings are honoured: HF_ENDPOINT,
HF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, and the proxies of the environment.
"""

from i3dzoo.hub.address import Address, is_address, parse
from i3dzoo.hub.download import Snapshot, pull
from i3dzoo.hub.listing import Entry, list_models
from i3dzoo.hub.package import WEIGHTS, About, Package, prepare, verified
from i3dzoo.hub.upload import Pushed, push

__all__ = [
    "WEIGHTS",
    "About",
    "Address",
    "Entry",
    "Package",
    "Pushed",
    "Snapshot",
    "is_address",
    "list_models",
    "parse",
    "prepare",
    "pull",
    "push",
    "verified",
]
