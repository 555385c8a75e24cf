"""The open HTTP connections of a worker, by client address and by how long they are idle.

aiohttp accepts as many connections as there are; the first thing that then finds no file descriptor is Kafka's client
or a table, and the worker ends (measured: 1,100 idle connections with 1,024 descriptors). Here a new connection
replaces the one that has been idle longest. Where none is idle, it is refused with 503.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from web.connections.bounds import Bounds

#: Connections that are examined for an idle one when the limit is reached.
_EXAMINED: Final = 32


class Evictable(Protocol):
    """A connection as the registry needs it."""

    #: The client's address.
    client: str

    @property
    def is_idle(self) -> bool:
        """Whether it is serving no request and has none queued."""

    def evict(self) -> None:
        """Close it at once; it removes itself from the registry."""


class ConnectionRegistry:
    """The open connections, in all and by client, the longest idle first."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._all: OrderedDict[Evictable, None] = OrderedDict()
        self._by_client: dict[str, OrderedDict[Evictable, None]] = {}
        #: Connections that are being answered with 503 because the limit is reached.
        self.refusing = 0

    def __len__(self) -> int:
        return len(self._all)

    def add(self, connection: Evictable) -> bool:
        """Register a connection, closing an idle one if a limit is reached; False if none is idle."""
        own = self._by_client.get(connection.client, OrderedDict())
        if len(own) >= self.bounds.per_client and not _evict_idle(own):
            return False
        if len(self._all) >= self.bounds.connections and not _evict_idle(self._all):
            return False
        self._all[connection] = None
        self._by_client.setdefault(connection.client, OrderedDict())[connection] = None
        return True

    def touch(self, connection: Evictable) -> None:
        """Note that the connection has sent a request."""
        if connection in self._all:
            self._all.move_to_end(connection)
            self._by_client[connection.client].move_to_end(connection)

    def remove(self, connection: Evictable) -> None:
        """Forget a connection; no error if it is not registered."""
        if connection in self._all:
            own = self._by_client[connection.client]
            del self._all[connection], own[connection]
            if not own:
                del self._by_client[connection.client]


def _evict_idle(connections: OrderedDict[Evictable, None]) -> bool:
    """Close the connection that has been idle longest; False if none of those examined is idle."""
    for _ in range(min(_EXAMINED, len(connections))):
        connection = next(iter(connections))
        if connection.is_idle:
            connection.evict()
            return True
        connections.move_to_end(connection)  # the next call examines others first
    return False
