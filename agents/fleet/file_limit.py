"""The process's limit of open files: raised as far as it goes, because every connection and table takes one."""

from __future__ import annotations

import resource
from typing import Final

#: More helps nobody, and some programs that we start go through all that are possible.
MOST: Final = 65_536


def raise_file_limit() -> int:
    """Raise the soft limit to the hard one (or `MOST`); the soft limit as it then is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return MOST if soft == resource.RLIM_INFINITY else soft
