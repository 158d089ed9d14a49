"""A worker that says, or is asked, anything but what it should ends with a reason; it ends with refnet."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from refnet.core.errors import FrameworkError
from refnet.frameworks import channel, live
from refnet.frameworks.process import Answer, Worker
from tests.frameworks.test_frameworks_process import silent

GREETINGS = [
    "",
    "hello",
    "[" * 100_000,
    "null",
    "7",
    "[]",
    '"id"',
    "{}",
    '{"id": 0}',
    '{"id": 1, "fields": {"commands": []}}',
    '{"id": 0, "fields": 7}',
    '{"id": 0, "fields": []}',
    '{"id": 0, "fields": {}}',
    '{"id": 0, "fields": {"commands": 5}}',
    '{"id": 0, "fields": {"commands": null}}',
    '{"id": 0, "fields": {"commands": "info"}}',
    '{"id": 0, "fields": {"commands": [1, null]}}',
    '{"id": 0, "fields": {"commands": {"info": 1}}}',
    '{"id": 0, "error": "another version"}',
    '{"id": 0, "value": "x", "array": "out-0.npy"}',
    '{"id": 0, "fields": {"commands": ["\\ud800"]}, "x": ' + "9" * 5000 + "}",
]


@pytest.fixture
def fake(tmp_path):
    path = tmp_path / "fake_worker.py"
    path.write_text("COMMANDS = {}")
    return path


@pytest.mark.parametrize("said", GREETINGS, ids=lambda text: text[:40])
def test_a_first_message_that_is_none(fake, tmp_path, said):
    (tmp_path / "said").write_text(said + "\n")
    python = silent(tmp_path, f"cat {tmp_path}/said; exec sleep 60")
    with pytest.raises(FrameworkError, match="answered nonsense") as error:
        Worker(fake, python, timeout=20)
    assert len(str(error.value)) < 1000


def test_a_random_first_message(fake, tmp_path):
    """A quick slice; more of them say no more."""
    rng = random.Random(7)
    good = b'{"id": 0, "fields": {"commands": ["info"]}, "arrays": {}}'
    for _ in range(10):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "said").write_bytes(bytes(data) + b"\n")
        python = silent(tmp_path, f"cat {tmp_path}/said; exec sleep 60")
        with contextlib.suppress(FrameworkError):
            Worker(fake, python, timeout=20).close()


def test_a_null_byte_in_a_variable(fake):
    with pytest.raises(FrameworkError, match="null byte"):
        Worker(fake, sys.executable, environment={"A": "b\0c"})


def test_a_field_or_an_array_that_is_missing():
    answer = Answer({"version": "1.9", "threads": 1}, {}, "mxnet")
    assert answer.field("version", str) == "1.9"
    with pytest.raises(FrameworkError, match=r"mxnet: answered nothing as 'isa', expected a str"):
        answer.field("isa", str)
    with pytest.raises(FrameworkError, match=r"mxnet: answered '1' as 'threads', expected a str"):
        answer.field("threads", str)
    with pytest.raises(FrameworkError, match=r"mxnet: answered without the array 'y'"):
        answer.array("y")


def test_an_answer_of_another_shape():
    class Running:
        name = "torch"

        def ask(self, *_):
            return Answer({}, {"y": np.zeros(3, np.float32)})

    with pytest.raises(FrameworkError, match=r"torch: answered float32\[3\] for float32\[2\]"):
        live.ask(Running(), live.questions("torch", "sigmoid"), np.float32([1, 2]))


def channel_with(*arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, channel.__file__, *arguments]
    return subprocess.run(command, input=said, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_worker_that_is_started_by_hand(count):
    done = channel_with(*["x"] * count)
    assert done.returncode == 1
    assert done.stderr == ("refnet's worker: refnet starts this file itself: channel.py WORKER_FILE FOLDER\n")


def test_a_worker_without_commands(tmp_path):
    (tmp_path / "none.py").write_text("x = 1")
    done = channel_with(str(tmp_path / "none.py"), str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == f"refnet's worker: {tmp_path / 'none.py'} defines no COMMANDS\n"


@pytest.mark.parametrize(
    "request_", ["hello", "[" * 100_000, "7", "{}", '{"id": 1}', '{"id": 1, "command": "x"}']
)
def test_a_request_that_is_none(fake, tmp_path, request_):
    """The pipe stays open: the worker does not end because of its end."""
    command = [sys.executable, channel.__file__, str(fake), str(tmp_path)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert json.loads(process.stdout.readline())["fields"] == {"commands": []}
        process.stdin.write(request_ + "\n")
        process.stdin.flush()
        said = process.stderr.read()
        assert process.wait(60) == 1
        assert said.startswith("refnet's worker: ")
        assert said.count("\n") == 1
        assert "is no message with id, command, request, arrays" in said


BUSY = """
import sys, time
def work(request, arrays, emit):
    open(request["log"], "w").write(str(__import__("os").getpid()))
    end = time.monotonic() + 60
    while time.monotonic() < end:
        pass
COMMANDS = {"work": work}
"""
ASKING = """
import sys
from refnet.frameworks.process import Worker
Worker(sys.argv[1], sys.executable).ask("work", {"log": sys.argv[2]})
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_worker_ends_with_a_refnet_that_is_killed(tmp_path):
    """In the middle of a computation, when it looks at no pipe."""
    (tmp_path / "busy.py").write_text(BUSY)
    log = tmp_path / "log"
    asking = subprocess.Popen([sys.executable, "-c", ASKING, str(tmp_path / "busy.py"), str(log)])
    until = time.monotonic() + 60
    while not (log.exists() and log.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    worker = Path("/proc", log.read_text(), "stat")
    assert worker.exists()
    asking.kill()
    asking.wait()
    until = time.monotonic() + 10
    while time.monotonic() < until and worker.exists() and ") Z " not in worker.read_text():
        time.sleep(0.02)
    assert not worker.exists() or ") Z " in worker.read_text()
