"""Recognizers outside of Concord that read their requests from Kafka: `kafka-<name>`.

Such a program consumes `asr.requests.<name>` with any client, in any language, and answers on `asr.hypotheses`.
`examples/kafka_recognizer.py` is one.
"""

from __future__ import annotations

import re
from typing import Final

from schemas import topics
from schemas.topics import Topic

#: Names of these recognizers begin with this, because a colon cannot be in a topic's name; settings also take `kafka:`.
PREFIX: Final = "kafka-"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def is_over_kafka(recognizer: str) -> bool:
    """Whether the recognizer of this name reads its requests from Kafka."""
    return recognizer.startswith(PREFIX)


def own_name(recognizer: str) -> str:
    """The name behind the prefix. Raises ValueError if it cannot be in a topic's name."""
    name = recognizer.removeprefix(PREFIX)
    if not _NAME.fullmatch(name):
        raise ValueError(f"kafka:{name}: use 1 to 100 letters, digits and . _ - behind the colon")
    return name


def requests_topic(recognizer: str) -> Topic:
    """The public topic of this recognizer's requests. Raises ValueError as `own_name` does."""
    return topics.outside_requests(own_name(recognizer))


def published_topics(recognizer: str) -> tuple[Topic, ...]:
    """The topic of requests of a recognizer that reads Kafka; none of another."""
    return (requests_topic(recognizer),) if is_over_kafka(recognizer) else ()


class OverKafka:
    """A `PublishedRecognizer`."""

    def __init__(self, name: str, attempts: int = 3) -> None:
        """`attempts`: how often a request is published at most. Raises ValueError as `own_name` does."""
        self.name, self.attempts, self.topic = name, attempts, requests_topic(name)

    async def close(self) -> None:
        """See `PublishedRecognizer`: nothing is open."""
