"""Workers: what they answer arrives whole; whatever goes wrong ends in a RefnetError, soon."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from refnet.core.errors import FrameworkError, InputError
from refnet.frameworks import process
from refnet.frameworks.process import Worker
from tests.helpers.bits import AWKWARD, same_bits

FAKE = """
import os, sys, time
import numpy as np

print("printed while loading")

def echo(request, arrays, emit):
    print("printed by a command")
    os.write(1, b"written to fd 1\\n")
    return request, arrays

def count(request, arrays, emit):
    for i in range(request["n"]):
        sys.stderr.write("making %d\\n" % i)
        emit("v%d" % i, np.full(3, i, np.float32))
        with open(request["log"], "a") as log:
            log.write("%d " % i)
    return {"made": request["n"]}, {"last": np.float32([request["n"]])}

def fail(request, arrays, emit):
    emit("before", np.zeros(1))
    raise ValueError("shape (3,) does not fit")

def die(request, arrays, emit):
    emit("before", np.zeros(1))
    sys.stderr.write("Segmentation fault: stopping\\n")
    sys.stderr.flush()
    os._exit(7)

def hang(request, arrays, emit):
    sys.stderr.write("waiting for a lock\\n")
    sys.stderr.flush()
    time.sleep(600)

def environment(request, arrays, emit):
    return {name: os.environ.get(name) for name in request["names"]}, {}

def where(request, arrays, emit):
    return {"files": sorted(os.listdir(".")), "path": sys.path, "stdin": sys.stdin.read()}, {}

def objects(request, arrays, emit):
    return {}, {"y": np.array([{}], object)}

def infinite(request, arrays, emit):
    return {"y": float("nan")}, {}

COMMANDS = {f.__name__: f for f in (echo, count, fail, die, hang, environment, where, objects, infinite)}
"""


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    path = tmp_path_factory.mktemp("worker") / "fake_worker.py"
    path.write_text(FAKE)
    return path


@pytest.fixture(scope="module")
def worker(fake):
    with Worker(fake, sys.executable, timeout=60) as worker:
        yield worker


def silent(folder: Path, body: str) -> Path:
    """An "interpreter" that is a shell script: it says what the test wants said."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_arrays_and_fields_come_back_whole(worker):
    arrays = {
        "awkward": AWKWARD,
        "f16": np.float16([[1.5], [-0.0]]),
        "f64": np.float64(2.0**-1074),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
        "empty": np.zeros((0, 4), np.uint8),
        "../ a name\n": np.float32([1]),
    }
    answer = worker.ask("echo", {"deep": [1, {"text": "\u00e9\n"}]}, arrays)
    assert answer.fields == {"deep": [1, {"text": "\u00e9\n"}]}
    assert list(answer.arrays) == list(arrays)
    for name, array in arrays.items():
        assert answer.arrays[name].dtype == array.dtype
        assert answer.arrays[name].shape == array.shape
        assert answer.arrays[name].tobytes() == array.tobytes()
    assert same_bits(answer.arrays["awkward"], AWKWARD)


def test_values_come_one_at_a_time_and_files_do_not_pile_up(worker, tmp_path):
    log = tmp_path / "log"
    made = []
    for i, (name, value) in enumerate(worker.stream("count", {"n": 5, "log": str(log)})):
        assert name == f"v{i}"
        assert same_bits(value, np.full(3, i, np.float32))
        made.append(log.read_text().split() if log.exists() else [])
        assert len(made[-1]) == i, "the worker went on before the value was taken"
    assert len(made) == 5
    assert worker.ask("where").fields["files"] == []


def test_leaving_a_stream_early_stops_the_values_and_keeps_the_worker(worker, tmp_path):
    for name, _ in worker.stream("count", {"n": 50, "log": str(tmp_path / "log")}):
        if name == "v2":
            break
    assert worker.ask("echo", {"still": "here"}).fields == {"still": "here"}
    assert worker.ask("where").fields["files"] == []


def test_ask_drops_values_and_a_second_request_waits_its_turn(worker, tmp_path):
    answer = worker.ask("count", {"n": 3, "log": str(tmp_path / "log")})
    assert (answer.fields, answer.arrays["last"]) == ({"made": 3}, np.float32([3]))
    stream = worker.stream("count", {"n": 3, "log": str(tmp_path / "log")})
    next(stream)
    with pytest.raises(FrameworkError, match="a stream is still being read"):
        worker.ask("echo")
    stream.close()
    assert worker.ask("echo").fields == {}


def test_a_failing_command_names_its_reason_and_the_worker_lives_on(worker):
    with pytest.raises(FrameworkError, match=r"ValueError: shape \(3,\) does not fit"):
        worker.ask("fail")
    with pytest.raises(FrameworkError, match="does not fit"):
        list(worker.stream("fail"))
    with pytest.raises(FrameworkError, match="Object arrays cannot be saved"):
        worker.ask("objects")
    assert worker.ask("echo").fields == {}


def test_bad_requests_are_refused_here(worker):
    with pytest.raises(InputError, match="no command 'run'; it has count, die, echo"):
        worker.ask("run")
    with pytest.raises(InputError, match="'x' holds objects"):
        worker.ask("echo", {}, {"x": np.array([None])})
    with pytest.raises(InputError, match="not JSON"):
        worker.ask("echo", {"x": float("nan")})
    with pytest.raises(InputError, match="not JSON"):
        worker.ask("echo", {"x": b"bytes"})
    assert worker.ask("echo").fields == {}


def test_bad_arguments_are_refused(fake, tmp_path):
    with pytest.raises(InputError, match=r"'torch', 'mxnet' or a file, got 'caffe'"):
        Worker("caffe", sys.executable)
    with pytest.raises(InputError, match="threads must be at least 1, got 0"):
        Worker(fake, sys.executable, threads=0)
    with pytest.raises(FrameworkError, match=r"cannot start .*nowhere"):
        Worker(fake, tmp_path / "nowhere")


def test_the_environment_is_explicit(fake, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("INHERITED", "yes")
    names = ["OMP_NUM_THREADS", "MXNET_SUBGRAPH_BACKEND", "PYTHONPATH", "INHERITED"]
    with Worker(fake, sys.executable, threads=3, environment={"MXNET_SUBGRAPH_BACKEND": "NONE"}) as worker:
        found = worker.ask("environment", {"names": names}).fields
    assert found == dict(zip(names, ["3", "NONE", None, "yes"], strict=True))


def test_the_worker_imports_nothing_of_refnets_folders_and_reads_no_input(worker):
    fields = worker.ask("where").fields
    assert str(Path(process.__file__).parent) not in fields["path"]
    assert fields["stdin"] == ""


def test_death_is_reported_with_the_last_words(fake):
    for ask in (lambda w: w.ask("die"), lambda w: list(w.stream("die"))):
        with Worker(fake, sys.executable) as worker:
            with pytest.raises(FrameworkError, match=r"(?s)exit status 7.*Segmentation fault: stopping"):
                ask(worker)
            with pytest.raises(FrameworkError, match="closed"):
                worker.ask("echo")


def test_a_hang_ends_at_the_timeout(fake):
    with Worker(fake, sys.executable, timeout=30) as worker:
        worker.timeout = 0.5
        begin = time.monotonic()
        with pytest.raises(FrameworkError, match=r"(?s)within 0\.5 s.*waiting for a lock"):
            worker.ask("hang")
        assert time.monotonic() - begin < 10
        assert not worker._folder.exists()


def test_a_worker_that_never_comes_up(tmp_path, fake):
    with pytest.raises(FrameworkError, match=r"(?s)exit status 3.*no such library"):
        Worker(fake, silent(tmp_path, "echo no such library >&2; exit 3"))
    with pytest.raises(FrameworkError, match=r"within 0\.5 s"):
        Worker(fake, silent(tmp_path, "exec sleep 600"), timeout=0.5)
    broken = tmp_path / "broken_worker.py"
    broken.write_text("import no_such_framework\n")
    with pytest.raises(FrameworkError, match=r"(?s)exit status 1.*No module named 'no_such_framework'"):
        Worker(broken, sys.executable)


HELLO = """echo '{"id": 0, "fields": {"commands": ["x"]}, "arrays": {}}'; read line; """


@pytest.mark.parametrize(
    "answer",
    [
        "echo hello",
        "echo '[1]'",
        """echo '{"id": 99, "fields": {}, "arrays": {}}'""",
        """echo '{"id": 1}'""",
        """echo '{"id": 1, "fields": 3, "arrays": {}}'""",
        """echo '{"id": 1, "fields": {}, "arrays": {"y": "../../etc/passwd"}}'""",
        """echo '{"id": 1, "fields": {}, "arrays": {"y": 5}}'""",
        """echo '{"id": 1, "fields": {}, "arrays": {"y": "out-9.npy"}}'""",
        """echo '{"id": 1, "value": 7, "array": "out-9.npy"}'""",
        """echo text > out-0.npy; echo '{"id": 1, "value": "v", "array": "out-0.npy"}'""",
        "head -c 40000000 /dev/zero",
        "yes",
    ],
)
def test_nonsense_is_refused(tmp_path, fake, answer):
    script = silent(tmp_path, HELLO + answer + "; sleep 600")
    with Worker(fake, script, timeout=20) as worker, pytest.raises(FrameworkError, match="answered nonsense"):
        list(worker.stream("x"))


def hostile_arrays() -> dict[str, bytes]:
    def npy(header: str, data: bytes = b"") -> bytes:
        return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data

    return {
        "huge": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }", b"1234"),
        "overflow": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 8), }"),
        "negative": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"),
        "pickle": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n."),
        "code": npy("{'descr': __import__('os').system('exit'), 'fortran_order': False, 'shape': ()}"),
        "cut": npy("{'descr': '<f4'")[:9],
        "dtype": npy("{'descr': 'zzz', 'fortran_order': False, 'shape': (1,), }"),
        "zip": b"PK\x03\x04rest",
        "bare pickle": b"\x80\x04N.",
    }


@pytest.mark.parametrize("name", hostile_arrays())
def test_hostile_arrays_are_refused(tmp_path, fake, name):
    (tmp_path / "evil").write_bytes(hostile_arrays()[name])
    body = (
        f"""cp {tmp_path}/evil out-0.npy; echo '{{"id": 1, "value": "v", "array": "out-0.npy"}}'; sleep 600"""
    )
    with (
        Worker(fake, silent(tmp_path, HELLO + body), timeout=20) as worker,
        pytest.raises(FrameworkError, match="unreadable array"),
    ):
        list(worker.stream("x"))


def test_the_folder_and_the_process_are_gone_after_close(fake):
    worker = Worker(fake, sys.executable)
    folder, pid = worker._folder, worker._process.pid
    assert folder.exists()
    worker.close()
    worker.close()
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_worker_dies_with_an_interpreter_that_forgets_it(fake):
    code = (
        "import sys; from refnet.frameworks.process import Worker; "
        f"w = Worker({str(fake)!r}, sys.executable); print(w._process.pid, w._folder)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    pid, folder = out.split()
    assert not Path(folder).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_the_real_workers_come_up_without_their_framework():
    for name in ("torch", "mxnet"):
        with Worker(name, sys.executable) as worker:
            more = {"mxnet": ("info", "joined"), "torch": ("alone", "build", "export", "info")}[name]
            assert worker.commands == (
                *more,
                "load",
                "op",
                "probe",
                "run",
                *(["run_exported"] if name == "torch" else []),
                "save",
                "time",
            )
            with pytest.raises(FrameworkError, match=f"mxnet|torch.*No module named '{name}'"):
                worker.ask("info")
