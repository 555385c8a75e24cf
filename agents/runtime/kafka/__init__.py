"""Kafka below Faust: clients, record batches of any maker, topics and positions of groups."""
