"""What every database must do with uploads straight into the store; see `sinks.ports.api.direct_uploads`."""

from __future__ import annotations

from uuid import uuid4

from tests.contract.databases.cases import direct_upload


async def test_an_upload_is_found_by_its_id_as_it_was_begun(under_test):
    database, with_token, without = under_test.database.acting_as("t"), direct_upload(), direct_upload(token_hash=None)
    for one in (direct_upload(upload_id=with_token.upload_id, token_hash=b"before"), with_token, without):
        await database.begin_upload(one)

    assert await database.direct_upload(with_token.upload_id) == with_token
    assert await under_test.database.direct_upload(without.upload_id) == without
    assert await database.direct_upload(uuid4()) is None
