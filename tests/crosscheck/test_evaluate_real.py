"""`refnet evaluate`: the frameworks' own counts on the digits; rows that no worker and no kill changes."""

from __future__ import annotations

import csv
import os
import socket
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.prove.prove import prove
from refnet.workers.workers import Workers
from tests.crosscheck.evaluate import NETWORK, compare, descendants
from tests.crosscheck.test_digits_real import ask
from tests.models.test_digits import NETWORKS, WEIGHTS, digits

pytestmark = pytest.mark.crosscheck

MXNET, TORCH = NETWORKS


@pytest.mark.parametrize(
    ("name", "framework", "weights", "right"),
    [(MXNET, "mxnet", WEIGHTS / MXNET, 358), (TORCH, "torch", WEIGHTS / f"{TORCH}.pth", 357)],
)
def test_the_frameworks_own_counts(name, framework, weights, right, tmp_path, report) -> None:
    """Class for class, on each of the 360 images."""
    theirs, _ = ask(framework, weights, tmp_path)
    found = refnet.evaluate(name, output=tmp_path / "out")
    with (tmp_path / "out" / "rows.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    answers = {int(row["id"]): int(row["class_1"]) for row in rows}
    test = np.flatnonzero(digits().test)
    assert sorted(answers) == test.tolist()
    assert answers == {int(i): int(theirs[i].argmax()) for i in test}
    assert int((theirs.argmax(1) == digits().label)[test].sum()) == found.right(1) == right
    in_five = [digits().label[i] in np.argsort(-theirs[i], kind="stable")[:5] for i in test]
    assert found.right(5) == sum(in_five)
    report.append(f"evaluate {name}: {found.right(1)} and {found.right(5)} of 360, as the framework")


def test_rows_are_equal_whoever_computes_them(tmp_path: Path, report: list[str]) -> None:
    """192 images, a slice of the command's 2,000: 1 process, 2, dask, each with a worker killed."""
    compare(tmp_path, 192, NETWORK, report.append)


def listening() -> set[str]:
    """The addresses, as in /proc/net, that this process and those that it has started listen at."""
    own = set()
    for process in (os.getpid(), *descendants(os.getpid())):
        for file in Path(f"/proc/{process}/fd").glob("*"):
            with suppress(OSError):  # it is closed, or the process has ended
                own.add(file.readlink().name)
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in own:
                found.add(words[1])
    return found


def test_a_cluster_made_here_listens_on_loopback_only(tmp_path: Path) -> None:
    before, during = listening(), set()
    refnet.evaluate(TORCH, dask="local:2", progress=lambda done, total: during.update(listening()))
    new = during - before
    loopback = f"{int.from_bytes(socket.inet_aton('127.0.0.1'), 'little'):08X}"
    assert new
    assert {address.split(":")[0] for address in new} == {loopback}
    assert not listening() - before


def test_a_scheduler_that_is_not_there_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr("refnet.workers.dask_cluster.WAIT", 1)
    with pytest.raises(refnet.InputError, match=r"--dask tcp://127.0.0.1:1: no scheduler answers"):
        refnet.evaluate(TORCH, dask="tcp://127.0.0.1:1")


def test_a_proof_on_dask_is_the_proof() -> None:
    here = prove("exp", [0x42, 0x7F], threads=2)
    there = prove("exp", [0x42, 0x7F], workers=Workers(dask="local:2"))
    assert there.chunks == here.chunks
