"""Records written to a broker byte by byte, as a foreign or hostile producer can: header names need not be UTF-8."""

import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

BATCH_BYTES = 600_000  # of one record batch: a topic's max.message.bytes is 1 MB
PRODUCE, VERSION = 0, 3


@dataclass(frozen=True)
class Raw:
    """One record to write. `ts` is Kafka's timestamp in milliseconds."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[bytes, bytes | None]]
    ts: int


def produce_raw(bootstrap_servers: str, topic: str, records: Sequence[Raw], within: float = 60) -> None:
    """Write them to partition 0 of a topic, in order, all in the log on return. One broker; the topic exists."""
    host, port = bootstrap_servers.split(":")
    with socket.create_connection((host, int(port)), timeout=within) as connection:
        for batch in _batches(records):
            _send(connection, topic.encode(), batch)


def _batches(records: Sequence[Raw]) -> Iterator[bytes]:
    encoded: list[bytes] = []
    times: list[int] = []
    for record in records:
        one = _record(record, len(encoded), times[0] if times else record.ts)
        if encoded and sum(map(len, encoded)) + len(one) > BATCH_BYTES:
            yield _batch(encoded, times)
            encoded, times = [], []
            one = _record(record, 0, record.ts)
        encoded.append(one)
        times.append(record.ts)
    if encoded:
        yield _batch(encoded, times)


def _varint(number: int) -> bytes:
    number = (number << 1) ^ (number >> 63)
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _sized(part: bytes | None) -> bytes:
    return _varint(-1) if part is None else _varint(len(part)) + part


def _record(record: Raw, place: int, first_ts: int) -> bytes:
    body = b"\0" + _varint(record.ts - first_ts) + _varint(place) + _sized(record.key) + _sized(record.value)
    body += _varint(len(record.headers)) + b"".join(_sized(name) + _sized(value) for name, value in record.headers)
    return _varint(len(body)) + body


def _batch(encoded: list[bytes], times: list[int]) -> bytes:
    # attributes, last offset delta, first and largest timestamp; no producer id, epoch nor sequence; count
    tail = struct.pack(">hiqqqhii", 0, len(encoded) - 1, times[0], max(times), -1, -1, -1, len(encoded))
    tail += b"".join(encoded)
    head = struct.pack(">ibI", -1, 2, _crc32c(tail))  # leader epoch, magic, checksum
    return struct.pack(">qi", 0, len(head) + len(tail)) + head + tail


def _send(connection: socket.socket, topic: bytes, batch: bytes) -> None:
    def text(part: bytes) -> bytes:
        return struct.pack(">h", len(part)) + part

    request = struct.pack(">hhi", PRODUCE, VERSION, 1) + text(b"raw")
    request += struct.pack(">hhi", -1, -1, 30_000)  # no transaction; acknowledged by all, within 30 s
    request += struct.pack(">i", 1) + text(topic) + struct.pack(">iii", 1, 0, len(batch)) + batch
    connection.sendall(struct.pack(">i", len(request)) + request)
    answer = _exactly(connection, struct.unpack(">i", _exactly(connection, 4))[0])
    error = struct.unpack_from(">h", answer, 4 + 4 + 2 + len(topic) + 4 + 4)[0]
    assert error == 0, f"the broker refused a batch: error {error}"


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        assert part, "the broker closed the connection"
        found += part
    return found


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)  # Castagnoli's polynomial, reflected
        table.append(crc)
    return table


_CRC = _crc_table()


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
