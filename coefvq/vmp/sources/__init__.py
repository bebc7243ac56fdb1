"""Where events come from beside the log: a Kafka topic, a table of a database (docs/engines.md)."""
