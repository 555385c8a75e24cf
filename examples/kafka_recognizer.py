"""A recognizer of one's own behind Kafka: `python kafka_recognizer.py NAME COMMAND...`, with `kafka:NAME` in
CONCORD_RECOGNIZERS. COMMAND gets the path of a recording as its last word, and prints what is said in it: text, or JSON
with `words`. Killed anywhere, it answers the request again when it is back; of two answers the first one counts.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import urllib.request

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

#: What an answer may have; a longer transcript goes by `transcript_uri`.
INLINE_BYTES = 900_000


def recognized(request: dict, command: list[str]) -> dict:
    """The answer to a request. Raises OSError where the recording cannot be fetched."""
    with tempfile.NamedTemporaryFile() as file:
        with urllib.request.urlopen(request["audio_url"], timeout=60) as audio:  # https:// or file://
            while portion := audio.read(1 << 20):
                file.write(portion)
        file.flush()
        process = subprocess.run([*command, file.name], capture_output=True, text=True, errors="replace", check=False)
    if process.returncode:
        return {"status": "failed", "error": process.stderr[-500:] or "it ended without a word"}
    said = process.stdout.strip()
    try:
        transcript = json.loads(said)
    except ValueError:
        transcript = None
    answer = {"status": "ok"} | (transcript if isinstance(transcript, dict) else {"text": said})
    if len(json.dumps(answer)) > INLINE_BYTES:
        return {"status": "failed", "error": f"its transcript has more than {INLINE_BYTES} bytes"}
    return answer


async def main(name: str, *command: str) -> None:
    """Answer requests for ever."""
    kafka = {"bootstrap_servers": os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092")}
    reading = {"group_id": f"recognizer.{name}", "auto_offset_reset": "earliest", "isolation_level": "read_committed"}
    patience = {"session_timeout_ms": 6000, "max_poll_interval_ms": 3_600_000, "enable_auto_commit": False}
    consumer = AIOKafkaConsumer(f"asr.requests.{name}", **kafka, **reading, **patience)
    async with consumer, AIOKafkaProducer(**kafka, acks="all", max_request_size=1_000_000) as producer:
        async for record in consumer:
            request = json.loads(record.value)
            about = {key: request[key] for key in ("tenant_id", "job_id", "run", "recognizer", "marker")}
            try:
                answer = about | await asyncio.to_thread(recognized, request, list(command))
                await producer.send_and_wait("asr.hypotheses", json.dumps(answer).encode(), record.key)
            except OSError as exc:  # its URL may have ended: the request comes again with another
                print(f"{request['marker']}: {exc}", file=sys.stderr)
            await consumer.commit()  # only now: what was not answered comes again after a kill


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
