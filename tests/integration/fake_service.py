"""What `downtick demo` needs of the service, and no more, so that the demo's own behaviour can be tested by itself.

Takes the settings from the environment, warms up for 31 updates of a stock, then answers each one. The first argument
is a way to misbehave: `dies` after 200 updates, `refuses` to start, `forgets` every hundredth update."""

import collections
import http.server
import json
import os
import sys
import threading
import time

from confluent_kafka import Consumer, Producer

counts: collections.Counter[str] = collections.Counter()
ready = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = "".join(f"downtick_{name} {value}\n" for name, value in counts.items()).encode()
        self.send_response(200 if self.path == "/metrics" or ready.is_set() else 503)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    fault = sys.argv[1] if len(sys.argv) > 1 else ""
    if fault == "refuses":
        sys.exit("the bundle is broken: checksum of weights.npz")
    port = int(os.environ["DOWNTICK_HTTP__PORT"])
    threading.Thread(target=http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever, daemon=True).start()
    servers = {"bootstrap.servers": os.environ["DOWNTICK_KAFKA__BOOTSTRAP_SERVERS"]}
    options = dict(pair.split("=", 1) for pair in os.environ["DOWNTICK_KAFKA__CONSUMER"].split(","))
    consumer = Consumer({**servers, **options, "group.id": "fake", "auto.offset.reset": "earliest"})
    producer = Producer({**servers, "linger.ms": 0})
    consumer.subscribe(["prices"], on_assign=lambda *_: ready.set())
    seen: collections.Counter[str] = collections.Counter()
    while True:
        message = consumer.poll(0.1)
        if message is None or message.error():
            continue
        event = json.loads(message.value() or b"")
        stock = event["stock"]
        seen[stock] += 1
        if seen.total() > 200 and fault == "dies":
            print("out of memory, says the fake", flush=True)
            os._exit(7)
        if fault == "forgets" and seen.total() % 100 == 0:
            continue
        if seen[stock] < 32:
            counts['events_skipped_total{reason="warming_up"}'] += 1
            continue
        prediction = {
            "stock": stock,
            "ts": event["ts"][:19] + ".000Z",
            "value": event["value"],
            "falling": False,
            "falling_probability": 0.25,
            "flipped": False,
            "forecast": event["value"],
            "forecast_low": 0.0,
            "forecast_high": 1.0,
        }
        producer.produce("predictions", json.dumps(prediction), stock)
        producer.poll(0)
        counts["predictions_published_total"] += 1


if __name__ == "__main__":
    sys.stdout = sys.stderr
    time.sleep(0.2)
    main()
