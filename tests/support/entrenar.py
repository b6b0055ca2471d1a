"""A database of entrenar 0.7.13, as the source of its SqliteBackend fills it."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3

TIME = "2026-01-01T12:00:0{}.123456789"

SCHEMA = """
create table schema_version (version text, applied_at text);
create table experiments (id text primary key, name text, description text, config text, tags text, created_at text,
    updated_at text);
create table runs (id text primary key, experiment_id text, status text, start_time text, end_time text, tags text);
create table params (run_id text, key text, value text, type text, primary key (run_id, key));
create table metrics (run_id text, key text, step integer, value real, timestamp text);
create table artifacts (id text primary key, run_id text, path text, size_bytes integer, sha256 text, data blob,
    created_at text);
create table span_ids (run_id text primary key, span_id text);
"""
PARAMS = {
    "lr": {"type": "Float", "value": 1e-8}, "size": {"type": "Int", "value": 32},
    "opt": {"type": "String", "value": "x"},
    "amp": {"type": "Bool", "value": True}, "nan": {"type": "Float", "value": None},
    "sizes": {"type": "List", "value": [{"type": "Int", "value": 1}, {"type": "Float", "value": 2.0}]},
    "model": {"type": "Dict", "value": {"depth": {"type": "Int", "value": 18}}},
}  # fmt: skip


def fill(database: sqlite3.Connection, run_ids: list[str]) -> None:
    """Write what entrenar's SqliteBackend does."""
    database.execute("pragma journal_mode = wal")
    database.executescript(SCHEMA)
    now = TIME.format(0) + "+00:00"
    row = ("18f", "digits", None, '{"seed": 7}', None, now, now)
    database.execute("insert into experiments values (?, ?, ?, ?, ?, ?, ?)", row)
    for run_id in run_ids:
        times = (TIME.format(1) + "+00:00", TIME.format(9) + "+00:00")
        database.execute("insert into runs values (?, '18f', 'completed', ?, ?, null)", (run_id, *times))
        for key, value in PARAMS.items():
            params = (run_id, key, json.dumps(value), str(value["type"]).lower())
            database.execute("insert into params values (?, ?, ?, ?)", params)
        for step in range(3):
            row = (run_id, "loss", step, float("inf") if step == 2 else step / 3, TIME.format(2 + step) + "+00:00")
            database.execute("insert into metrics values (?, ?, ?, ?, ?)", row)
        for name, digest in (("model.bin", None), ("model.bin", None), ("../x", None), ("bad", "0" * 64)):
            data = name.encode()
            digest = digest or hashlib.sha256(data).hexdigest()
            row = (os.urandom(4).hex(), run_id, name, len(data), digest, data, "2026-01-01 12:00:05")
            database.execute("insert into artifacts values (?, ?, ?, ?, ?, ?, ?)", row)
        database.execute("insert into span_ids values (?, '00f067aa0ba902b7')", (run_id,))
    database.commit()
