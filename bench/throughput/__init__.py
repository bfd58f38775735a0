"""Updates per second, latency and memory of the service, beside a bare Kafka loop and the loops a user would write.

`python -m bench.throughput --help`. Everything is measured in that run, on that machine, broker and Redis included."""
