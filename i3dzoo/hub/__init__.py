"""The Hugging Face Hub: push and pull repositories that are verified on the way.

The Hub's own client checks only the size of a download. Here every file is compared with the digest
that the Hub lists for it and with the repository's SHA256SUMS before it is used, and every tensor
with the checksum in the weight file.

huggingface_hub loads its modules on first use. Its settings apply: HF_ENDPOINT, HF_TOKEN, HF_HOME,
HF_HUB_CACHE, HF_HUB_OFFLINE, and the proxies of the environment.
"""

from i3dzoo.hub.address import WEIGHTS, Address, is_address, parse
from i3dzoo.hub.download import Snapshot, pull
from i3dzoo.hub.facts import About
from i3dzoo.hub.listing import ListedModel, list_models
from i3dzoo.hub.package import Package, prepare
from i3dzoo.hub.sums import verify_folder
from i3dzoo.hub.upload import Pushed, push

__all__ = [
    "WEIGHTS",
    "About",
    "Address",
    "ListedModel",
    "Package",
    "Pushed",
    "Snapshot",
    "is_address",
    "list_models",
    "parse",
    "prepare",
    "pull",
    "push",
    "verify_folder",
]
