"""Configures glibc's allocator to return freed memory to the kernel; otherwise a worker's RSS stays at its peak."""

from __future__ import annotations

import ctypes

#: Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8

#: Bytes from which a block is mapped by itself and unmapped when freed, and free bytes at the end of a heap that are
#: returned. By default, both grow with the largest block ever freed: after one part of an upload (16 MB), 32 MB stay.
LARGE = 1 << 20

#: Heaps of all threads together. By default there are eight per core, each fragmented by itself.
HEAPS = 2


def release_freed_memory() -> None:
    """Configure this process, before it starts threads. Does nothing if the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((_MMAP_THRESHOLD, LARGE), (_TRIM_THRESHOLD, LARGE), (_ARENA_MAX, HEAPS)):
            mallopt(parameter, value)
