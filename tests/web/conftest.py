"""Fixtures of the web service."""

from __future__ import annotations

import pytest

from tests.web.service import (
    UUID,
    Worker,
)


@pytest.fixture
async def worker():
    async with Worker() as worker:
        yield worker


@pytest.fixture
async def both(worker):
    """A job of the same id and reference of two tenants, with a recording and a transcript each."""
    for tenant in ("acme", "bolt"):
        await worker.created(UUID, tenant, reference="call 1/2 ü")
        await worker.stored_audio(UUID, tenant)
        await worker.finished(UUID, tenant)
    return worker
