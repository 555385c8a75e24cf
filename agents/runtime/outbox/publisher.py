"""Publishes a batch of outbox rows in one Kafka transaction, and reports which rows or topics Kafka refuses.

aiokafka retries retriable errors without end, also where the cause does not pass: a topic that was deleted, or has too
few in-sync replicas. So a batch is given up when no answer arrives any more, and the topics are looked up. After a
refusal the producer's sequence numbers are ahead of those that the broker has stored, so the producer is replaced; the
start of the new one also aborts the open transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition, errors
from aiokafka.errors import KafkaError

from agents.runtime.failpoints import passing
from agents.runtime.kafka import client as broker
from agents.runtime.kafka.client import Kafka
from schemas import topics
from schemas.envelope import MAX_EVENT_BYTES
from schemas.messages import MAX_LETTER_BYTES, load_headers

log = logging.getLogger(__name__)

#: The consumer group whose offsets are batch numbers. It has no members.
GROUP = "concord.relay"

#: Seconds without an answer after which a batch is given up; timeouts for listing topics, and for starting and stopping
#: a producer.
ANSWER_S, METADATA_S, START_S, STOP_S = 6.0, 2.0, 8.0, 1.0

#: The error of a topic that is not in Kafka's metadata.
MISSING = "UnknownTopicOrPartition: the topic does not exist, or this login may not see it"

#: The timestamp of a record without one: Kafka accepts it whatever its clock says.
NO_TIMESTAMP = -1


class InvalidRecordError(errors.BrokerResponseError):  # type: ignore[misc]
    """The broker has checked the record and refuses it, e.g. one without a key on a compacted topic."""

    errno = 87
    message = "INVALID_RECORD"


# aiokafka lacks this code, and would report it as UnknownError.
errors.kafka_errors.setdefault(InvalidRecordError.errno, InvalidRecordError)

#: Errors that are about one record, which Kafka will never accept.
RECORD_ERRORS = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.UnsupportedForMessageFormatError,
    InvalidRecordError,
)

#: Errors of a topic that accepts no record at all.
TOPIC_ERRORS = (
    errors.UnknownTopicOrPartitionError,
    errors.TopicAuthorizationFailedError,
    errors.InvalidTopicError,
    errors.InvalidRequiredAcksError,
    errors.PolicyViolationError,
)

#: Errors of the producer or the whole cluster. So is every error that aiokafka marks as retriable.
CLUSTER_ERRORS = (
    errors.ProducerFenced,
    errors.ProducerClosed,
    errors.KafkaTimeoutError,
    errors.IllegalStateError,
    errors.AuthenticationFailedError,
    errors.AuthenticationMethodNotSupported,
    errors.SaslAuthenticationFailed,
    errors.SecurityDisabled,
    errors.ClusterAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.TransactionalIdAuthorizationFailed,
    errors.InvalidProducerEpoch,
    errors.InvalidProducerIdMapping,
    errors.InvalidTxnState,
    errors.InvalidTransactionTimeout,
    errors.ConcurrentTransactions,
    errors.TransactionCoordinatorFenced,
    errors.OutOfOrderSequenceNumber,
    errors.DuplicateSequenceNumber,
    errors.UnknownProducerId,
    errors.OperationNotAttempted,
    errors.UnsupportedVersionError,
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Kafka's error for one row's record. The cause may be another record that was sent together with it."""

    error: str
    #: Whether the error is one of `RECORD_ERRORS`. Any other may come from the broker's state.
    clear: bool
    #: Whether the same record will never be accepted, even if its topic's configuration changes.
    final: bool


@dataclass
class BatchRefused(Exception):
    """Kafka refuses the batch because of some of its rows, or of their topics. Nothing of it is published."""

    #: By the row's id.
    rows: dict[int, Refusal] = field(default_factory=dict)
    #: The error of each topic that accepts nothing at the moment.
    topics: dict[str, str] = field(default_factory=dict)
    #: Whether Kafka refuses the records' timestamps.
    timestamps: bool = False
    #: Whether a transaction is open, which the next start of the producer aborts.
    in_transaction: bool = True

    def __str__(self) -> str:
        reasons = {*(refusal.error for refusal in self.rows.values()), *(f"{t}: {e}" for t, e in self.topics.items())}
        return ", ".join(sorted(reasons)) or "its records' timestamps are too far from Kafka's clock"

    @property
    def has_cause(self) -> bool:
        """Whether any row, topic or timestamp is known to be refused."""
        return bool(self.rows or self.topics or self.timestamps)


class Publisher:
    """A transactional producer for one shard. After any error of `publish` it must be started again."""

    def __init__(self, kafka: Kafka, shard: int) -> None:
        self._kafka = kafka
        self._shard = shard
        self._producer: Any = None
        #: Whether records carry the database's time. Kafka refuses timestamps that are too far from its own clock.
        self.timestamped = True

    async def start(self) -> None:
        """Replace the producer. Kafka then completes or aborts the open transaction of any former one.

        Raises KafkaError or TimeoutError when Kafka does not answer.
        """
        await self.close()
        self._producer = broker.producer(
            self._kafka,
            transactional_id=f"concord-relay-{self._shard}",
            transaction_timeout_ms=60_000,
            request_timeout_ms=15_000,
        )
        async with asyncio.timeout(START_S):
            await self._producer.start()

    async def close(self) -> None:
        """Stop the producer, whatever state it is in. Safe to call twice."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        # Unsent records would keep it from stopping.
        producer._message_accumulator.fail_all(errors.ProducerClosed())  # noqa: SLF001 - there is no other way
        for stop in (producer.stop, producer.client.close):
            with contextlib.suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await stop()

    async def publish(self, rows: Sequence[Any], batch: int) -> None:
        """Publish the rows and commit the batch's number, both or neither.

        Raises:
            BatchRefused: rows or topics are the cause; nothing is published.
            KafkaError, TimeoutError: anything else. Whether the batch is published is then unknown until the committed
                number is read from Kafka.
        """
        records = _all_headers(rows)
        await self._check_topics({row["topic"] for row in rows})
        sending = _SendingBatch(self._producer, rows, timestamped=self.timestamped)
        position = TopicPartition(topics.RELAY_POSITION, self._shard)
        try:
            await _within_limit(self._producer.begin_transaction())
            for row, headers in zip(rows, records, strict=True):
                await sending.send(row, headers)
            await sending.wait()
            await _within_limit(self._producer.send_offsets_to_transaction({position: batch}, GROUP))
            passing("relay.sent")
        except (KafkaError, TimeoutError, errors.IllegalOperation) as exc:
            await self._raise_cause(sending, exc)
        await _within_limit(self._producer.commit_transaction())

    async def _check_topics(self, names: set[str]) -> None:
        """Raise BatchRefused for topics that do not exist. A broker may create a topic that is requested by name, with
        another configuration than Concord needs; so all names are listed instead.
        """
        unknown = {name for name in names if self._producer.client.cluster.partitions_for_topic(name) is None}
        missing = unknown - await self._existing_topics() if unknown else set()
        if missing:
            raise BatchRefused(topics=dict.fromkeys(missing, MISSING), in_transaction=False)

    async def _existing_topics(self) -> set[str]:
        async with asyncio.timeout(METADATA_S):
            cluster = await self._producer.client.fetch_all_metadata()
        names: set[str] = cluster.topics() | cluster.unauthorized_topics
        return names

    async def _raise_cause(self, sending: _SendingBatch, exc: Exception) -> None:
        """Raise BatchRefused where rows or topics are the cause, else the error."""
        refused = sending.refused(_transaction_error(self._producer))
        if not refused.has_cause and isinstance(exc, TimeoutError):
            refused = await self._unanswered_topics(sending, exc)
        if refused.has_cause:
            raise refused from exc
        raise exc if isinstance(exc, KafkaError | TimeoutError) else KafkaError(str(exc))

    async def _unanswered_topics(self, sending: _SendingBatch, exc: Exception) -> BatchRefused:
        """The topics of a batch without an answer that are missing, or else those of the rows without an answer."""
        existing = await self._existing_topics()
        if topics.RELAY_POSITION not in existing:
            raise errors.UnknownTopicOrPartitionError(topics.RELAY_POSITION) from exc
        missing = {row["topic"] for row in sending.rows} - existing
        reason = MISSING if missing else f"no answer in {ANSWER_S:.0f} s: no leader, or too few replicas"
        return BatchRefused(topics=dict.fromkeys(missing or sending.unanswered(), reason))


class _SendingBatch:
    """Sends the rows of a batch, and keeps the answer or error of each."""

    def __init__(self, producer: Any, rows: Sequence[Any], *, timestamped: bool) -> None:
        self.rows = rows
        self._producer = producer
        self._timestamped = timestamped
        #: None while a row waits to be sent, because the producer's buffer for its partition is full.
        self._answers: dict[int, asyncio.Future[Any] | None] = {}
        self._errors: dict[int, BaseException] = {}

    async def send(self, row: Any, headers: list[tuple[str, bytes | None]]) -> None:
        """Hand one row to the producer. Raises KafkaError, and TimeoutError while its partition's buffer is full."""
        self._answers[row["id"]] = None
        try:
            sending = self._producer.send(
                row["topic"],
                row["value"],
                row["key"],
                headers=headers,
                timestamp_ms=row["now_ms"] if self._timestamped else NO_TIMESTAMP,
            )
            answer = await _within_limit(sending)
        except errors.MessageSizeTooLargeError as exc:
            self._errors[row["id"]] = exc
            del self._answers[row["id"]]
        else:
            answer.add_done_callback(_retrieved_error)
            self._answers[row["id"]] = answer

    async def wait(self) -> None:
        """Wait for all answers; raise the first error, or TimeoutError after `ANSWER_S` without any answer."""
        answers = [answer for answer in self._answers.values() if answer is not None]
        pending = set(answers)
        while pending:
            done, pending = await asyncio.wait(pending, timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise TimeoutError
        for answer in answers:
            answer.result()
        for exc in self._errors.values():
            raise exc

    def refused(self, transaction_error: BaseException | None) -> BatchRefused:
        """The rows and topics that Kafka refuses, by the answers so far; `has_cause` is False if there is none."""
        if isinstance(transaction_error, errors.TopicAuthorizationFailedError):
            error = _description(transaction_error)
            return BatchRefused(topics=dict.fromkeys(_denied_topics(transaction_error), error))  # others follow from it
        refused = BatchRefused()
        for row, exc in self._failures():
            if isinstance(exc, errors.InvalidTimestampError) and self._timestamped:
                refused.timestamps = True
            elif isinstance(exc, TOPIC_ERRORS):
                refused.topics[row["topic"]] = _description(exc)
            elif not (isinstance(exc, CLUSTER_ERRORS) or getattr(exc, "retriable", False)):
                refused.rows[row["id"]] = Refusal(
                    _description(exc), isinstance(exc, RECORD_ERRORS), _is_final(exc, row)
                )
        return refused

    def _failures(self) -> Iterator[tuple[Any, BaseException]]:
        for row in self.rows:
            exc = self._errors.get(row["id"]) or _retrieved_error(self._answers.get(row["id"]))
            if exc is not None:
                yield row, exc

    def unanswered(self) -> set[str]:
        """The topics of rows without an answer."""
        waiting = {id for id, answer in self._answers.items() if answer is None or not answer.done()}
        return {row["topic"] for row in self.rows if row["id"] in waiting}


async def _within_limit(answer: Awaitable[Any]) -> Any:
    async with asyncio.timeout(ANSWER_S):
        return await answer


def _retrieved_error(answer: asyncio.Future[Any] | None) -> BaseException | None:
    """The error of an answer, if it has one. Read from every answer: asyncio logs exceptions that are never read."""
    return answer.exception() if answer is not None and answer.done() and not answer.cancelled() else None


def _denied_topics(exc: BaseException) -> set[str]:
    """The topics that the error names: aiokafka raises it with one name, or with several."""
    names = exc.args[0] if exc.args else ()
    return {names} if isinstance(names, str) else set(names)


def _all_headers(rows: Sequence[Any]) -> list[list[tuple[str, bytes | None]]]:
    """The headers of each row. Raises BatchRefused for rows that cannot be a Kafka record."""
    headers, refused = [], {}
    for row in rows:
        try:
            headers.append(_headers(row))
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            refused[row["id"]] = Refusal(f"no Kafka record: {_description(exc)}", clear=True, final=True)
    if refused:
        raise BatchRefused(refused, in_transaction=False)
    return headers


def _headers(row: Mapping[str, Any]) -> list[tuple[str, bytes | None]]:
    if row["key"] is None and row["value"] is None:
        raise ValueError("neither key nor value")
    headers = load_headers(row["headers"])
    for name, _ in headers:
        name.encode()  # UnicodeEncodeError is a ValueError
    return headers


def _is_final(exc: BaseException, row: Any) -> bool:
    """Whether raising the topic's limit could not help: a record that exceeds Concord's own limits is final."""
    if isinstance(exc, errors.MessageSizeTooLargeError | errors.RecordListTooLargeError):
        limit = MAX_LETTER_BYTES if row["topic"].endswith(".dlq") else MAX_EVENT_BYTES
        return len(row["key"] or b"") + len(row["value"] or b"") + len(row["headers"]) > limit
    return isinstance(exc, RECORD_ERRORS)


def _transaction_error(producer: Any) -> BaseException | None:
    """The coordinator's error for the transaction, which aiokafka does not pass to `send`."""
    end = producer._txn_manager.wait_for_transaction_end()  # noqa: SLF001 - there is no other way
    if end is None or not end.done() or end.cancelled():
        return None
    error: BaseException | None = end.exception()
    return error


def _description(exc: BaseException) -> str:
    name = type(exc).__name__
    text = " ".join(str(argument) for argument in exc.args if str(argument) != name)
    return f"{name}: {text}"[:300] if text else name
