"""Small files that would cost much, or do something, in a reader that trusts them."""

from __future__ import annotations

BOMBS = {
    "nested lists": b"[" * 200_000,
    "nested objects": b'{"a":' * 100_000,
    "nested flow of YAML": b"a: " + b"{a: " * 100_000,
    "nested blocks of YAML": b"".join(b" " * i + b"a:\n" for i in range(100)),
    "many nested blocks of YAML": b"".join(b" " * i + b"a:\n" for i in range(1500)),
    "a number of many digits": b'{"a": ' + b"9" * 100_000 + b"}",
    "laughs": b"a: &a [x]\n"
    + b"".join(b"%c: &%c [%b]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(9)),
    "an object of Python": b"a: !!python/object/apply:os.system ['touch pwned']\n",
    "a tag": b"a: !!python/name:os.system\n",
    "another encoding": '{"a": 1}'.encode("utf-16"),
    "a list in itself": b"a: &a [*a]\n",
    "merge keys": b"a: &a {x: 1}\nb: {<<: *a}\n",
    "keys twice": b'{"complete": false, "complete": true}',
    "keys that are lists": b"? [1, 2]\n: 3\n",
    "NUL": bytes(100_000),
    "a date that is none": b"a: 2026-99-99\n",
    "sexagesimal": b"a: 190:20:30\n",
}
