"""The version of i3dzoo."""

__all__ = ["__version__"]

__version__ = "0.1.0"
