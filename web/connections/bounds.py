"""The limits of HTTP connections, as settings and the process's file descriptors allow them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a worker its HTTP clients may use."""

    #: Connections in all, and from one address. Behind a proxy all clients have one address.
    connections: int = 4096
    per_client: int = 2048
    #: Seconds and bytes from a request's first byte (or the connection's beginning) to the end of its head.
    head_s: float = 10.0
    head_bytes: int = 32_768
    #: Seconds between requests. Longer than the proxies' own (60 s), or their requests would meet closed connections.
    idle_s: float = 75.0
    #: Seconds in which a client may read nothing of what it is sent.
    stalled_s: float = 30.0

    @classmethod
    def within(cls, connections: int, descriptors: int) -> Bounds:
        """At most so many connections, and half of the descriptors: the rest is for Kafka, PostgreSQL and files."""
        most = max(min(connections, descriptors // 2), 8)
        return cls(connections=most, per_client=max(most // 2, 4))

    @property
    def event_streams(self) -> int:
        """Event streams that may be open at once; half of the connections stay free for short requests."""
        return self.connections // 2

    @property
    def uploads(self) -> int:
        """Recordings that may be received at once; a caller may send a quarter of them."""
        return max(self.connections // 16, 4)

    @property
    def blob_streams(self) -> int:
        """Recordings and raw transcripts that may be sent at once."""
        return self.connections // 4
