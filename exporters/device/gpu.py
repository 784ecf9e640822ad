"""The GPU through the driver's own library: there wherever a GPU can be used, and the same in every CUDA version."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from .files import RefusedError


@dataclass(frozen=True)
class Device:
    """The GPU that CUDA puts first."""

    name: str
    capability: str  # "8.7"
    driver: int  # CUDA version of the driver, 12060


class Cuda:
    """The few driver calls that running an engine needs. Source: CUDA Driver API reference."""

    def __init__(self) -> None:
        try:
            self.library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise RefusedError(
                "no NVIDIA driver here (libcuda.so.1 cannot be loaded); run this on the device itself"
            ) from error
        self.call("cuInit", ctypes.c_uint(0))
        count = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(count))
        if count.value < 1:
            raise RefusedError("the NVIDIA driver sees no GPU")
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self.device = device
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a driver function; a status other than 0 raises."""
        status = getattr(self.library, name)(*arguments)
        if status != 0:
            raise RuntimeError(f"{name} failed with CUDA driver status {status}")

    def describe(self) -> Device:
        """What the device is."""
        text = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", text, ctypes.c_int(256), self.device)
        numbers = []
        for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
            value = ctypes.c_int()
            self.call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(attribute), self.device)
            numbers.append(value.value)
        driver = ctypes.c_int()
        self.call("cuDriverGetVersion", ctypes.byref(driver))
        return Device(text.value.decode("utf-8", "replace"), f"{numbers[0]}.{numbers[1]}", driver.value)

    def allocate(self, size: int) -> ctypes.c_void_p:
        """Device memory."""
        pointer = ctypes.c_void_p()
        self.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(1, size)))
        return pointer

    def stream(self) -> ctypes.c_void_p:
        """A stream that does not wait for the default one."""
        made = ctypes.c_void_p()
        self.call("cuStreamCreate", ctypes.byref(made), ctypes.c_uint(1))
        return made

    def event(self) -> ctypes.c_void_p:
        """An event that measures time."""
        made = ctypes.c_void_p()
        self.call("cuEventCreate", ctypes.byref(made), ctypes.c_uint(0))
        return made
