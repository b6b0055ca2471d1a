"""Secrets among parameters and arguments are written nowhere; what looks like none is written as it is."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import pytest

import shmlog
from shmlog.folder.logsettings import SECRET_NAMES
from shmlog.run.redact import REDACTED, redact_argv, redact_config

SECRET = "hunter2-hunter2"
SECRETS = (
    "password", "db_password", "PASSWD", "passphrase", "client_secret", "api_key", "apiKey", "WANDB_API_KEY",
    "aws_secret_access_key", "ssh-key", "token", "hf_token", "HF_TOKEN", "auth.token", "credentials",
    "slack_token", "DB_PWD", "openai_key",
)  # fmt: skip
PLAIN = (
    "max_tokens", "pad_token", "eos_token", "num_key_value_heads", "tokenizer", "image_key", "sort_key", "monitor",
    "key", "keys", "next_token", "secretary", "key_dim", "lr",
)  # fmt: skip


@pytest.mark.parametrize("name", SECRETS)
def test_names_of_secrets_are_known(name: str) -> None:
    assert redact_config({"a": [{name: SECRET}]}, SECRET_NAMES) == {"a": [{name: REDACTED}]}
    assert redact_config({name: {"user": "me", "value": 1}}, SECRET_NAMES) == {name: REDACTED}
    assert redact_argv(["x.py", f"--{name}={SECRET}", "a"], SECRET_NAMES) == ["x.py", f"--{name}={REDACTED}", "a"]
    assert redact_argv([f"--{name}", SECRET, "a"], SECRET_NAMES) == [f"--{name}", REDACTED, "a"]
    assert redact_argv([f"+model.{name}={SECRET}"], SECRET_NAMES) == [f"+model.{name}={REDACTED}"]


@pytest.mark.parametrize("name", PLAIN)
def test_names_of_models_are_none_of_secrets(name: str) -> None:
    assert redact_config({name: "value"}, SECRET_NAMES) == {name: "value"}
    arguments = [f"--{name}=value", f"--{name}", "value", f"{name}=value"]
    assert redact_argv(arguments, SECRET_NAMES) == arguments


def test_that_there_is_no_secret_is_none() -> None:
    assert redact_config({"token": None, "password": False}, SECRET_NAMES) == {"token": None, "password": False}
    assert redact_argv(["--password", "--lr", "1"], SECRET_NAMES) == ["--password", "--lr", "1"]


def log_from_child(run: shmlog.Run) -> None:
    run.log_config({"of_child": {"api_key": SECRET}})
    run.flush()


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_secret_is_written_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--api-key", SECRET, f"--hf_token={SECRET}", "--lr=1"])
    with shmlog.init("secrets", root=tmp_path, config={"lr": 1, "db": {"password": SECRET}}) as run:
        run.log_config({"token": SECRET, "more": 2})
        child = multiprocessing.get_context("spawn").Process(target=log_from_child, args=(run,))
        child.start()
        child.join()
        assert child.exitcode == 0
        run.flush()
        assert SECRET.encode() not in bytes_of(run.dir)
    again = shmlog.init(resume=run.dir, config={"secret": SECRET})
    again.finish()
    assert SECRET.encode() not in bytes_of(run.dir)
    stored = shmlog.load(run.dir)
    assert stored.config == {
        "lr": 1, "db": {"password": REDACTED}, "token": REDACTED, "more": 2, "of_child": {"api_key": REDACTED},
        "secret": REDACTED,
    }  # fmt: skip
    assert stored.metadata["argv"] == ["train.py", "--api-key", REDACTED, f"--hf_token={REDACTED}", "--lr=1"]


def test_another_pattern_takes_the_place_of_ours(tmp_path: Path) -> None:
    with shmlog.init("own", root=tmp_path, config={"pin": 1234, "password": "x"}, redact="^pin$") as run:
        run.log_config({"PIN": 5})
    assert shmlog.load(run.dir).config == {"pin": REDACTED, "password": "x", "PIN": REDACTED}
    shmlog.init(resume=run.dir, config={"pin": 99}).finish()
    assert shmlog.load(run.dir).config["pin"] == REDACTED, "as in the attempt before"
    shmlog.init(resume=run.dir, config={"pin": 99}, redact="").finish()
    assert shmlog.load(run.dir).config["pin"] == 99


@pytest.mark.parametrize(("pattern", "error"), [("(", ValueError), (1, TypeError)])
def test_what_is_no_pattern_is_refused(pattern: str, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error, match="redact must be"):
        shmlog.init("own", root=tmp_path / "runs", redact=pattern)
    assert not (tmp_path / "runs").exists()
