"""Tells glibc's allocator to give back what a long recording took: else a worker keeps its largest moment for good."""

from __future__ import annotations

import ctypes

#: What may be set, by glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8

#: Bytes from which a block is the kernel's own and returned when freed, and free bytes at a heap's end that are
#: returned. Left alone, both grow with the largest block ever freed: after one part of an upload (16 MB), 32 MB stay.
LARGE = 1 << 20

#: Heaps for all threads together; left alone, eight for each core, each with holes of its own.
HEAPS = 2


def release_freed_memory() -> None:
    """Set it for this process, before it has threads. Does nothing where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for what, value in ((_MMAP_THRESHOLD, LARGE), (_TRIM_THRESHOLD, LARGE), (_ARENA_MAX, HEAPS)):
            mallopt(what, value)
