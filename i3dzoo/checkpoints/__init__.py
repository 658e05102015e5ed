"""Checkpoints: tensors with their description, in any layout."""
