"""What every database must do with uploads straight into the store; see `sinks.ports.api.direct_uploads`."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

from tests.contract.databases.cases import direct_upload


async def test_an_upload_is_found_by_its_id_as_it_was_begun(under_test):
    database, with_token, without = under_test.database.acting_as("t"), direct_upload(), direct_upload(token_hash=None)
    for one in (direct_upload(upload_id=with_token.upload_id, token_hash=b"before"), with_token, without):
        await database.begin_upload(one)

    assert await database.direct_upload(with_token.upload_id) == with_token
    assert await under_test.database.direct_upload(without.upload_id) == without
    assert await database.direct_upload(uuid4()) is None


async def test_parts_are_removed_of_uploads_that_have_expired(under_test):
    database, now = under_test.database, await under_test.database.now()
    old, new = (
        direct_upload(parts_id=f"id-{hours}", expires_at=now - timedelta(hours=hours), token_hash=None)
        for hours in (5, 0.5)
    )
    for upload in (old, new, direct_upload(expires_at=now - timedelta(hours=9))):
        await database.begin_upload(upload)
    assert await database.direct_upload(new.upload_id) == new
    assert await database.expired_parts(3600, 10) == [old]
    await database.forget_parts([old.upload_id])

    assert await database.expired_parts(3600, 10) == []
    assert await database.direct_upload(old.upload_id) == replace(old, parts_id=None)
