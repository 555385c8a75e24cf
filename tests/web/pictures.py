"""Pictures of the console's pages, for people who would rather look."""

from __future__ import annotations

import os


async def seen(page, name):
    """A picture of the page, where CONCORD_PICTURES names a folder for them."""
    if folder := os.environ.get("CONCORD_PICTURES"):
        await page.screenshot(path=f"{folder}/{name}.png", full_page=True)
