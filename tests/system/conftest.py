"""The server that system tests share, besides those of every test."""

from tests.servers.s3 import s3_server

__all__ = ["s3_server"]
