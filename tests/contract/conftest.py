"""What contract tests share: the S3 server, and what the SDK knows about S3."""

from functools import cache

import pytest

from tests.servers.s3 import s3_server

__all__ = ["s3_server"]


@pytest.fixture(scope="session", autouse=True)
def _sdk_reads_its_descriptions_once():
    """Botocore parses two megabytes of JSON for each new session: two thirds of what 130 short tests with a client of
    their own took.
    """
    from botocore.loaders import JSONFileLoader

    read = JSONFileLoader.load_file
    once = cache(lambda path: read(JSONFileLoader(), path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: once(path))
        yield
