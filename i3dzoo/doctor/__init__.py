"""Examine this machine: versions, devices, what works when it is tried, and known traps."""

from i3dzoo.doctor.examination import Attempt, Examination, examine

__all__ = ["Attempt", "Examination", "examine"]
