"""Which GPUs this process may use, asked of the driver itself: a reader must not carry torch for that."""

from __future__ import annotations

import ctypes

UUID_BYTES = 16


def visible() -> tuple[str, ...]:
    """The identity (UUID, hexadecimal) of each GPU in the order of ``cuda:0``, ``cuda:1``, ...; empty without a driver.

    ``CUDA_VISIBLE_DEVICES`` and the binding of a batch system count as they do for torch.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    return tuple(_uuid(driver, index) for index in range(count.value))


def _uuid(driver: ctypes.CDLL, index: int) -> str:
    device, uuid = ctypes.c_int(), (ctypes.c_ubyte * UUID_BYTES)()
    failed = driver.cuDeviceGet(ctypes.byref(device), index) or driver.cuDeviceGetUuid_v2(ctypes.byref(uuid), device)
    return f"index {index}" if failed else bytes(uuid).hex()
