"""Publishes a batch of outbox rows in one Kafka transaction, and says what Kafka has against a batch that it refuses.

aiokafka retries what it holds to be passing for ever, also what never passes: a topic that was deleted, or has too few
replicas in sync. So a batch of which nothing is answered any more is given up, and the topics are looked at. And after
a refusal the producer's sequence numbers are ahead of what the broker has seen of them, so that it must be replaced:
the new one's start also aborts the transaction that was left open.
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

#: Seconds without an answer after which a batch is given up; that topics may be looked at, and that a producer may take
#: to start and to stop.
ANSWER_S, LOOK_S, START_S, STOP_S = 6.0, 2.0, 8.0, 1.0

#: Of a topic that Kafka does not show.
MISSING = "UnknownTopicOrPartition: there is no such topic, or this login may not see it"

#: For a record without a time. Kafka takes it whatever its clock says.
NO_TIME = -1


class InvalidRecordError(errors.BrokerResponseError):  # type: ignore[misc]
    """The broker has checked the record and does not want it, e.g. one without a key on a compacted topic."""

    errno = 87
    message = "INVALID_RECORD"


# aiokafka does not know this one, and would call it "unknown".
errors.kafka_errors.setdefault(InvalidRecordError.errno, InvalidRecordError)

#: What Kafka says about a record that it will never take.
OF_RECORD = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.UnsupportedForMessageFormatError,
    InvalidRecordError,
)

#: What it says about a topic that takes nothing, whatever is sent.
OF_TOPIC = (
    errors.UnknownTopicOrPartitionError,
    errors.TopicAuthorizationFailedError,
    errors.InvalidTopicError,
    errors.InvalidRequiredAcksError,
    errors.PolicyViolationError,
)

#: What it says about the producer or the whole cluster. So does every error that aiokafka calls retriable.
OF_ALL = (
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
    """What Kafka says about one row's record. It may mean another one that was sent together with it."""

    error: str
    #: Whether the error says that it is about a record. Others may be about whatever goes on in a broker.
    clear: bool
    #: Whether the same record will never be taken, whatever becomes of its topic.
    final: bool


@dataclass
class BatchRefused(Exception):
    """Kafka does not take the batch because of some of its rows, or of their topics. Nothing of it is published."""

    #: By the row's id.
    rows: dict[int, Refusal] = field(default_factory=dict)
    #: Topics that take nothing at the moment, and why.
    topics: dict[str, str] = field(default_factory=dict)
    #: Whether the batch's times are what Kafka refuses.
    times: bool = False
    #: Whether a transaction is left open, which the next start of the producer aborts.
    begun: bool = True

    def __str__(self) -> str:
        reasons = {*(refusal.error for refusal in self.rows.values()), *(f"{t}: {e}" for t, e in self.topics.items())}
        return ", ".join(sorted(reasons)) or "its records' times are too far from Kafka's clock"


class Publisher:
    """A transactional producer for one shard. `start` it again after everything that `publish` raises."""

    def __init__(self, kafka: Kafka, shard: int) -> None:
        self._kafka = kafka
        self._shard = shard
        self._producer: Any = None
        #: Whether records carry the database's time. Kafka refuses those of a clock that is too far from its own.
        self.timed = True

    async def start(self) -> None:
        """A new producer. This ends, one way or the other, any transaction that a former one left open."""
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
        """Let go of the producer, whatever state it is in."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        # What it still tries to send would keep it from stopping.
        producer._message_accumulator.fail_all(errors.ProducerClosed())  # noqa: SLF001 - there is no other way
        for end in (producer.stop, producer.client.close):
            with contextlib.suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await end()

    async def publish(self, rows: Sequence[Any], batch: int) -> None:
        """Publish the rows and commit the batch's number, both or neither.

        Raises BatchRefused, or for everything that is not about rows or topics KafkaError or TimeoutError: it is then
        not known whether the batch was published, but to who asks Kafka for the number.
        """
        records = _records(rows)
        await self._find_topics({row["topic"] for row in rows})
        sending = _Sending(self._producer, rows, timed=self.timed)
        position = TopicPartition(topics.RELAY_POSITION, self._shard)
        try:
            await _within(self._producer.begin_transaction())
            for row, headers in zip(rows, records, strict=True):
                await sending.send(row, headers)
            await sending.sent()
            await _within(self._producer.send_offsets_to_transaction({position: batch}, GROUP))
            passing("relay.sent")
        except (KafkaError, TimeoutError, errors.IllegalOperation) as exc:
            await self._explain(sending, exc)
        await _within(self._producer.commit_transaction())

    async def _find_topics(self, names: set[str]) -> None:
        """Raise BatchRefused for topics that are not there. Asked for by name, they might be made, and not by us."""
        unknown = {name for name in names if self._producer.client.cluster.partitions_for_topic(name) is None}
        missing = unknown - await self._there() if unknown else set()
        if missing:
            raise BatchRefused(topics=dict.fromkeys(missing, MISSING), begun=False)

    async def _there(self) -> set[str]:
        async with asyncio.timeout(LOOK_S):
            cluster = await self._producer.client.fetch_all_metadata()
        names: set[str] = cluster.topics() | cluster.unauthorized_topics
        return names

    async def _explain(self, sending: _Sending, exc: Exception) -> None:
        """Raise BatchRefused where rows or topics are to blame, else the error."""
        refused = sending.refused(_of_transaction(self._producer))
        if not (refused.rows or refused.topics or refused.times) and isinstance(exc, TimeoutError):
            there = await self._there()
            if topics.RELAY_POSITION not in there:
                raise errors.UnknownTopicOrPartitionError(topics.RELAY_POSITION) from exc
            missing = {row["topic"] for row in sending.rows} - there
            reason = MISSING if missing else f"no answer in {ANSWER_S:.0f} s: no leader, or too few replicas"
            refused = BatchRefused(topics=dict.fromkeys(missing or sending.unanswered(), reason))
        if refused.rows or refused.topics or refused.times:
            raise refused from exc
        raise exc if isinstance(exc, KafkaError | TimeoutError) else KafkaError(str(exc))


class _Sending:
    """What has become of each row of a batch that is being sent."""

    def __init__(self, producer: Any, rows: Sequence[Any], *, timed: bool) -> None:
        self.rows = rows
        self._producer = producer
        self._timed = timed
        #: None while a row waits to be sent: its topic's partition takes no more.
        self._answers: dict[int, asyncio.Future[Any] | None] = {}
        self._errors: dict[int, BaseException] = {}

    async def send(self, row: Any, headers: list[tuple[str, bytes | None]]) -> None:
        self._answers[row["id"]] = None
        try:
            sent = self._producer.send(
                row["topic"],
                row["value"],
                row["key"],
                headers=headers,
                timestamp_ms=row["now_ms"] if self._timed else NO_TIME,
            )
            answer = await _within(sent)
        except errors.MessageSizeTooLargeError as exc:
            self._errors[row["id"]] = exc
            del self._answers[row["id"]]
        else:
            answer.add_done_callback(_seen)
            self._answers[row["id"]] = answer

    async def sent(self) -> None:
        """Wait for every answer, as long as they come; raise the first error."""
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

    def refused(self, of_transaction: BaseException | None) -> BatchRefused:
        refused = BatchRefused()
        if isinstance(of_transaction, errors.TopicAuthorizationFailedError):
            names = of_transaction.args[0] if of_transaction.args else ()
            denied = {names} if isinstance(names, str) else set(names)
            refused.topics |= {name: _said(of_transaction) for name in denied}
            return refused  # whatever else was said follows from it
        for row, exc in self._failures():
            if isinstance(exc, errors.InvalidTimestampError) and self._timed:
                refused.times = True
            elif isinstance(exc, OF_TOPIC):
                refused.topics[row["topic"]] = _said(exc)
            elif not (isinstance(exc, OF_ALL) or getattr(exc, "retriable", False)):
                refused.rows[row["id"]] = Refusal(_said(exc), isinstance(exc, OF_RECORD), _final(exc, row))
        return refused

    def _failures(self) -> Iterator[tuple[Any, BaseException]]:
        for row in self.rows:
            exc = self._errors.get(row["id"]) or _seen(self._answers.get(row["id"]))
            if exc is not None:
                yield row, exc

    def unanswered(self) -> set[str]:
        """The topics of rows that were sent and not answered."""
        waiting = {id for id, answer in self._answers.items() if answer is None or not answer.done()}
        return {row["topic"] for row in self.rows if row["id"] in waiting}


async def _within(answer: Awaitable[Any]) -> Any:
    async with asyncio.timeout(ANSWER_S):
        return await answer


def _seen(answer: asyncio.Future[Any] | None) -> BaseException | None:
    """What an answer failed with. Asked of each, so that none is reported as lost."""
    return answer.exception() if answer is not None and answer.done() and not answer.cancelled() else None


def _records(rows: Sequence[Any]) -> list[list[tuple[str, bytes | None]]]:
    """The rows' headers. Raises BatchRefused for rows of which no record can be made."""
    headers, refused = [], {}
    for row in rows:
        try:
            headers.append(_headers(row))
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            refused[row["id"]] = Refusal(f"no Kafka record: {_said(exc)}", clear=True, final=True)
    if refused:
        raise BatchRefused(refused, begun=False)
    return headers


def _headers(row: Mapping[str, Any]) -> list[tuple[str, bytes | None]]:
    if row["key"] is None and row["value"] is None:
        raise ValueError("neither key nor value")
    headers = load_headers(row["headers"])
    for name, _ in headers:
        name.encode()  # UnicodeEncodeError is a ValueError
    return headers


def _final(exc: BaseException, row: Any) -> bool:
    """A record is too large for good if our own limits say so, too; else its topic's limit may yet be raised."""
    if isinstance(exc, errors.MessageSizeTooLargeError | errors.RecordListTooLargeError):
        limit = MAX_LETTER_BYTES if row["topic"].endswith(".dlq") else MAX_EVENT_BYTES
        return len(row["key"] or b"") + len(row["value"] or b"") + len(row["headers"]) > limit
    return isinstance(exc, OF_RECORD)


def _of_transaction(producer: Any) -> BaseException | None:
    """The error for which the coordinator refuses the transaction: it is not told to those who send."""
    ended = producer._txn_manager.wait_for_transaction_end()  # noqa: SLF001 - there is no other way
    if ended is None or not ended.done() or ended.cancelled():
        return None
    error: BaseException | None = ended.exception()
    return error


def _said(exc: BaseException) -> str:
    name = type(exc).__name__
    text = " ".join(str(argument) for argument in exc.args if str(argument) != name)
    return f"{name}: {text}"[:300] if text else name
