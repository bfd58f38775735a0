"""Bytes in, bytes out: Kafka source and sink, event contract, engine, restore, metrics, HTTP and the commands."""
