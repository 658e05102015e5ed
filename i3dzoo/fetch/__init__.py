"""Get a model: find what an argument refers to, and download it if it is not cached."""
