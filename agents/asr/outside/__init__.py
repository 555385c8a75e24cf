"""Recognizers outside of Concord: their answers come by webhook, or over Kafka, where they also read their requests."""
