"""What every database must do with uploads straight into the store; see `sinks.ports.api.direct_uploads`."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

from sinks.ports.api.direct_uploads import DirectUpload


def upload(**more):
    fields = {
        "tenant_id": "t",
        "upload_id": uuid4(),
        "job_id": "j",
        "uri": "s3://b/t/uploads/1",
        "size_bytes": 5 << 30,
        "upload": {"filename": "Zoë.wav"},
        "token_hash": b"\x00\xff",
        "expires_at": datetime(2027, 1, 1, tzinfo=UTC),
    }
    return DirectUpload(**fields | more)


async def test_an_upload_is_found_by_its_id_as_it_was_begun(under_test):
    database, with_token, without = under_test.database.acting_as("t"), upload(), upload(token_hash=None)
    for one in (upload(upload_id=with_token.upload_id, token_hash=b"before"), with_token, without):
        await database.begin_upload(one)

    assert await database.direct_upload(with_token.upload_id) == with_token
    assert await under_test.database.direct_upload(without.upload_id) == without
    assert await database.direct_upload(uuid4()) is None
