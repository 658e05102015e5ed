"""Devices by name: one parser for every command and every function that takes one."""

from i3dzoo.devices.choice import (
    Device,
    choose_device,
    describe_devices,
    parse_device,
    suggested_devices,
)

__all__ = ["Device", "choose_device", "describe_devices", "parse_device", "suggested_devices"]
