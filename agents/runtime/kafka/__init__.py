"""Kafka below Faust: clients, a defensive record parser, topics, committed offsets of groups."""
