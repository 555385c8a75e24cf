"""Raises the process's limit of open files (RLIMIT_NOFILE), because every connection and table needs some."""

from __future__ import annotations

import resource
from typing import Final

#: The highest limit that is set: some programs that we start iterate over all possible descriptors.
MOST: Final = 65_536


def raise_file_limit() -> int:
    """Raise the soft limit to the hard one, or to `MOST`; the resulting soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        soft = limit
    return MOST if soft == resource.RLIM_INFINITY else soft
