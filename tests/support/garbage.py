"""Records as broken producers, foreign programs and attackers would write them, as hypothesis strategies."""

import json
from typing import Any

from hypothesis import strategies as st

from tests.support.load import START_MS
from tests.support.readers import Record

NOW_MS = START_MS + 400 * 86_400_000

GOOD = ["AAPL", "^GSPC", "BRK.B", "EUR/USD", "A" * 64]
BAD_NAMES = [
    *[
        "",
        " ",
        "A" * 65,
        "A" * 10_000,
        "A\n",
        "\nA",
        "A B",
        "é",
        "A\u0000",
        "\u0000",
        "-A",
        ".A",
        "{A}",
        "A{",
        "}",
        "*",
        "A*",
    ],
    *["A?", "[A-Z]", "A,B", "A'B", 'A"B', "A\\B", "%s", "$A", "\ufeffA", "😀", "../../etc", "A\r\nSET x y\r\n"],
]
NUMBERS = [
    *[
        "0",
        "-0",
        "-0.0",
        "5e-324",
        "1e-400",
        "1e308",
        "-1e308",
        "1.7976931348623157e308",
        "1.7976931348623159e308",
        "1e400",
    ],
    *["-1e400", "9007199254740993", "18446744073709551616", "123456789012345678901234567890", "0.1", "1E+2", "1e-2"],
    *["1" * 309, "1" * 310, "1" * 4_300, "1" * 4_301, "0." + "1" * 5_000, "1e" + "1" * 30],
]
NOT_NUMBERS = [
    '"1"',
    "true",
    "false",
    "null",
    "[]",
    "[1]",
    "{}",
    '{"a": 1}',
    '""',
    "NaN",
    "Infinity",
    "-Infinity",
    '"NaN"',
]
SYNTAX_ERRORS = ["", "+1", ".5", "1.", "01", "1e", "-", "nan", "-NaN", "0x10", "1_000", "1,", "'1'", "tru", "undefined"]
SECONDS = START_MS // 1000
TIMES = [
    *[
        str(START_MS),
        str(SECONDS),
        str(START_MS * 1_000),
        str(START_MS * 1_000_000),
        str(-START_MS),
        "0",
        "-1",
        f"{START_MS}.0",
    ],
    *[str(NOW_MS + 86_400_000), str(NOW_MS + 86_400_001), "-62135596800000", "-62135596800001", "253402300799999"],
    *["253402300800000", str(2**63), str(-(2**63) - 1), "1" * 400, "1e12"],
]
TIME_TEXTS = [
    *["2024-02-29T12:00:00Z", "2023-02-29T12:00:00Z", "2024-01-01T00:00:00.9999999+05:30", "2024-01-01T00:00:00-23:59"],
    *["2024-01-01T24:00:00Z", "2024-01-01T23:59:60Z", "2024-01-01T00:00:00+24:00", "0000-01-01T00:00:00Z"],
    *[
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59.999Z",
        "9999-12-31T23:59:59-00:01",
        "1969-12-31T23:59:59.9999Z",
    ],
    *["2024-01-01 00:00:00Z", "2024-01-01T00:00:00", "2024-01-01t00:00:00z", "2024-01-01T00:00Z", "20240101T000000Z"],
    *["2024-W01-1T00:00:00Z", "2024-01-01T00:00:00,5Z", "2024-01-01T00:00:00.Z", "", "now", "٢٠٢٤-01-01T00:00:00Z"],
    *["2024-01-01T00:00:00Z\n", " 2024-01-01T00:00:00Z", "2024-13-01T00:00:00Z", "2024-01-01T00:00:00+0530"],
]

names = st.one_of(st.sampled_from(GOOD), st.sampled_from(BAD_NAMES), st.text(max_size=70))
odd_json: Any = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(codec=None), max_size=8)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
).map(json.dumps)  # NaN, Infinity and lone surrogates included
number = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(json.dumps),
    st.integers(-1000, 1000).map(str),
    st.sampled_from(NUMBERS),
)
anything = st.one_of(number, st.sampled_from(NOT_NUMBERS), st.sampled_from(SYNTAX_ERRORS), odd_json)
times = st.one_of(
    st.sampled_from(TIMES),
    st.sampled_from(TIME_TEXTS).map(json.dumps),
    st.datetimes().map(lambda moment: json.dumps(moment.isoformat() + "Z")),
    st.integers(NOW_MS - 10**9, NOW_MS + 2 * 10**8).map(str),
    anything,
)
fields = st.one_of(
    st.dictionaries(st.sampled_from(["volume", "bid", "ask", "{x}", ""]), number, max_size=3).map(
        lambda given: "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in given.items()) + "}"
    ),
    anything,
)


@st.composite
def _object(draw: st.DrawFn, stock: str, wild: bool) -> str:  # noqa: FBT001 — drawn, not set
    """An event as text, member by member: so that a member can be missing, repeated, or be no JSON."""
    members = [
        ("stock", json.dumps(draw(names) if wild and draw(st.booleans()) else stock, ensure_ascii=draw(st.booleans())))
    ]
    members.append(("value", draw(anything if wild else number)))
    if draw(st.booleans()):
        members.append(("ts", draw(times if wild else st.integers(START_MS, NOW_MS).map(str))))
    if draw(st.integers(0, 3)) == 0:
        members.append(("fields", draw(fields)))
    if draw(st.integers(0, 3)) == 0:
        members.append((draw(st.sampled_from(["source", "x", "\ud800", "", "Stock"])), draw(odd_json)))
    if wild:
        members = draw(st.permutations(members))
        if draw(st.integers(0, 5)) == 0:
            members = members[1:]
        if draw(st.integers(0, 5)) == 0:
            members.append((draw(st.sampled_from(["stock", "value", "ts", "fields"])), draw(anything)))
    space = draw(st.sampled_from(["", " ", "\n\t ", "\r\n"]))
    return space + "{" + ("," + space).join(f"{json.dumps(name)}:{space}{text}" for name, text in members) + "}" + space


def nested(depth: int) -> st.SearchStrategy[bytes]:
    """JSON as deep as that, closed or not, alone or inside an event that would be right without it."""
    shapes = [
        b"[" * depth + b"1" + b"]" * depth,
        b"[" * depth,
        b'{"a":' * depth + b"1" + b"}" * depth,
        b'{"a":' * depth,
    ]
    return st.sampled_from([*shapes, *(b'{"stock":"AAPL","value":1,"x":' + shape + b"}" for shape in shapes)])


@st.composite
def _mutated(draw: st.DrawFn, text: str) -> bytes:
    """Truncated, prolonged, or with some bytes replaced: invalid UTF-8 among them."""
    value = bytearray(text.encode("utf-8", "surrogatepass"))
    match draw(st.sampled_from(["cut", "head", "trail", "bom", "replace", "insert", "utf-16"])):
        case "cut":
            del value[draw(st.integers(0, len(value))) :]
        case "head":
            del value[: draw(st.integers(1, 3))]
        case "trail":
            value += draw(st.sampled_from([b"\x00", b"{}", b",", b"]", b"\xff", b" ", b"\n1"]))
        case "bom":
            value[:0] = draw(st.sampled_from([b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"]))
        case "utf-16":
            value = bytearray(bytes(value).decode("utf-8", "replace").encode("utf-16"))
        case how:
            place = draw(st.integers(0, max(0, len(value) - 1)))
            value[place : place + (how == "replace")] = draw(st.binary(min_size=1, max_size=2))
    return bytes(value)


_HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["traceparent", "downtick.reason", "x", "", "é", "a" * 300]),
        st.one_of(st.none(), st.binary(max_size=8), st.sampled_from([b"t" * 256, b"t" * 257, b"x" * 40_000])),
    ),
    max_size=3,
)


@st.composite
def records(draw: st.DrawFn, deepest: int = 30_000) -> Record:
    """One record; about a third of them are events that the contract accepts."""
    stock = draw(st.sampled_from(GOOD))
    kind = draw(
        st.sampled_from(["right", "right", "wild", "wild", "mutated", "json", "bytes", "none", "deep", "large"])
    )
    value: bytes | None
    match kind:
        case "right" | "wild":
            value = draw(_object(stock, kind == "wild")).encode("utf-8", "surrogatepass")
        case "mutated":
            value = draw(_mutated(draw(_object(stock, wild=False))))
        case "json":
            value = draw(odd_json).encode()
        case "bytes":
            value = draw(st.binary(max_size=40))
        case "deep":
            value = draw(nested(draw(st.sampled_from([2, 199, 200, 201, 1_000, deepest]))))
        case "large":
            value = b'{"stock":"AAPL","value":1,"x":"' + b"x" * draw(st.integers(65_400, 66_000)) + b'"}'
        case _:
            value = None
    key = draw(
        st.sampled_from([stock.encode()] * 6 + [None, b"", b"OTHER", b"\xff\x00", stock.lower().encode(), b"k" * 5_000])
    )
    timestamp = NOW_MS + draw(st.sampled_from([0, 0, 0, 1, -86_400_000]))
    return Record("prices", 0, 0, key, value, draw(_HEADERS), timestamp)
