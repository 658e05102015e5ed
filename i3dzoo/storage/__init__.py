"""What i3dzoo keeps on the disk: models, downloads, repositories of the Hub, frames, choices."""

from i3dzoo.storage.entries import Entry, entries, find_entries, others_in_hub_cache
from i3dzoo.storage.remove import remove, unused
from i3dzoo.storage.verify import Checked, verify

__all__ = [
    "Checked",
    "Entry",
    "entries",
    "find_entries",
    "others_in_hub_cache",
    "remove",
    "unused",
    "verify",
]
