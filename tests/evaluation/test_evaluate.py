"""`refnet evaluate`: counts, rows and parts, on the digits and on a folder of made images."""

from __future__ import annotations

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.cli import main
from refnet.core.errors import FormatError, InputError
from refnet.evaluation import evaluate as module
from refnet.models.catalog import entry
from refnet.models.preprocess import pipeline
from refnet.models.weights import shipped_folder
from tests.helpers.image_folder import by_class
from tests.models.test_digits import NETWORKS, WEIGHTS, digits, digits_data, recorded

RESNEST = NETWORKS[1]
CLASSES = [str(i) for i in range(10)]


@pytest.fixture
def small(monkeypatch):
    """Parts of 8 images."""
    monkeypatch.setattr(module, "PART", 8)


@pytest.fixture
def made(tmp_path) -> Path:
    by_class(tmp_path / "val", CLASSES, 30, damaged=[13])
    return tmp_path / "val"


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "rows.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_shipped_digits_are_what_the_script_makes():
    assert (shipped_folder() / "digits-test.txt").read_text() == digits_data.as_text(digits())
    assert "CC BY 4.0" in digits_data.HEAD


@pytest.mark.parametrize("name", NETWORKS)
def test_the_counts_are_the_frameworks(name):
    found = refnet.evaluate(name)
    wrong = {int(row.id): row.classes[0] for row in found.rows if row.classes[0] != row.label}
    assert (found.right(1), wrong) == (recorded()[name].test, recorded()[name].wrong)
    assert (found.counted, found.exit_code) == (360, 0)


def test_rows_are_what_run_gives(made, tmp_path, small):
    found = refnet.evaluate(RESNEST, made, output=tmp_path / "out")
    assert (len(found.rows), found.counted, found.exit_code) == (30, 29, 2)
    graph = refnet.load(RESNEST)
    for row in rows(tmp_path / "out"):
        assert row["label"] == row["id"].split("/")[0]
        if row["error"]:
            assert row["id"] == "3/ILSVRC2012_val_00000014.JPEG"
            assert "damaged" in row["error"]
            continue
        prob = refnet.run(graph, {"data": pipeline("digits").apply(made / row["id"])})["prob"][0]
        order = np.argsort(-prob, kind="stable")[:5]
        assert [int(row[f"class_{i}"]) for i in range(1, 6)] == order.tolist()
        assert [int(row[f"bits_{i}"], 16) for i in range(1, 6)] == prob[order].view(np.uint32).tolist()


def test_workers_and_arithmetics_change_no_bit(made, small):
    here = refnet.evaluate(RESNEST, made)
    assert refnet.evaluate(refnet.load(RESNEST), made, processes=2).rows == here.rows
    with ThreadPoolExecutor(3) as pool:
        assert refnet.evaluate(RESNEST, made, executor=pool, batch=3).rows == here.rows
    golden = refnet.evaluate(RESNEST, made, arithmetic=refnet.Golden())
    assert [row.classes[:1] for row in golden.rows] == [row.classes[:1] for row in here.rows]
    assert golden.rows != here.rows


def test_a_book_decides_the_bits_and_the_batch(made):
    book = refnet.read_book(WEIGHTS / "books" / f"{RESNEST}.json")
    found = refnet.evaluate(RESNEST, made, arithmetic=refnet.Replay(book))
    assert found.identity["batch"] == book.reference.batch
    assert len(str(found.identity["book"])) == 64
    assert found.rows != refnet.evaluate(RESNEST, made).rows


def test_a_kill_loses_nothing_and_a_rerun_goes_on(made, tmp_path, small, monkeypatch):
    out = tmp_path / "out"
    whole = refnet.evaluate(RESNEST, made, output=tmp_path / "whole")

    def stop(done: int, total: int | None) -> None:
        if done > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refnet.evaluate(RESNEST, made, output=out, progress=stop)
    kept = sorted(path.name for path in out.iterdir())
    assert kept == ["part-00000.json", "part-00001.json"]
    computed = []
    real = module.results
    monkeypatch.setattr(module, "results", lambda w, s, jobs: (computed.extend(jobs), real(w, s, jobs))[1])
    assert refnet.evaluate(RESNEST, made, output=out).rows == whole.rows
    assert (out / "rows.csv").read_bytes() == (tmp_path / "whole" / "rows.csv").read_bytes()
    first = [part.index for part in computed]
    assert 0 in first or 1 in first or len(first) == 2
    assert 2 in first
    assert 3 in first


def test_a_rerun_computes_only_what_changed(made, tmp_path, small, monkeypatch):
    refnet.evaluate(RESNEST, made, output=tmp_path / "out")
    computed: list[int] = []
    real = module.results
    monkeypatch.setattr(
        module, "results", lambda w, s, jobs: (computed.extend(p.index for p in jobs), real(w, s, jobs))[1]
    )
    ids = sorted(path.relative_to(made).as_posix() for path in made.rglob("*.*"))
    bad = ids.index("3/ILSVRC2012_val_00000014.JPEG") // 8
    refnet.evaluate(RESNEST, made, output=tmp_path / "out")
    assert computed == [bad]  # it may be readable now
    computed.clear()
    by_class(made, CLASSES, 14)
    found = refnet.evaluate(RESNEST, made, output=tmp_path / "out")
    assert set(computed) == {ids.index(f"{i % 10}/{n}") // 8 for i in range(14) for n in [name(made, i)]}
    assert found.exit_code == 0


def test_an_image_replaced_during_the_run_is_computed_again(made, tmp_path, small, monkeypatch):
    """After it was read, before its part was written: the part's row is of the old file."""
    ids = sorted(path.relative_to(made).as_posix() for path in made.rglob("*.*"))
    late, real = made / ids[0], module.results

    def replaced(workers, parcel, jobs):
        for part, found in real(workers, parcel, jobs):
            if part.index == 0:
                late.write_bytes(b"no image")
            yield part, found

    monkeypatch.setattr(module, "results", replaced)
    first = {row.id: row for row in refnet.evaluate(RESNEST, made, output=tmp_path / "out").rows}
    monkeypatch.setattr(module, "results", real)
    again = {row.id: row for row in refnet.evaluate(RESNEST, made, output=tmp_path / "out").rows}
    assert not first[ids[0]].error
    assert again[ids[0]].error


def test_published_figures_are_the_cards_or_the_tables(tmp_path):
    """Of a network without a card, those of its table's row."""
    path = tmp_path / "list.txt"
    path.write_text("nothing.png 3\n")
    found = refnet.evaluate(
        "octave-mobilenet-v1-0.75-0.375", image_list=path, mapping="outputs", weights="seed:0"
    )
    assert found.published == (70.5, 89.5)
    assert entry("octave-se-resnet-50-0.125").accuracy == (78.706, 94.09)
    assert entry("resnest-digits").accuracy is None


def name(folder: Path, index: int) -> str:
    return next((folder / str(index % 10)).glob(f"*{index + 1:08d}.*")).name


def test_a_part_of_another_run_is_refused(made, tmp_path, small):
    out = tmp_path / "out"
    refnet.evaluate(RESNEST, made, output=out)
    with pytest.raises(InputError, match=r"part-00000.json is of another run: its weights is '"):
        refnet.evaluate(RESNEST, made, output=out, weights="seed:1")
    with pytest.raises(InputError, match=r"its arithmetic is 'plain', here it is 'golden': name another"):
        refnet.evaluate(RESNEST, made, output=out, arithmetic=refnet.Golden())
    with pytest.raises(InputError, match=r"its batch is 8, here it is 4"):
        refnet.evaluate(RESNEST, made, output=out, batch=4)
    (made / "0" / name(made, 0)).unlink()
    with pytest.raises(InputError, match=r"its images is '"):
        refnet.evaluate(RESNEST, made, output=out)


@pytest.mark.parametrize("damage", ["cut", "row", "bits", "twice"])
def test_a_damaged_part_is_an_error(made, tmp_path, small, damage):
    refnet.evaluate(RESNEST, made, output=tmp_path / "out")
    path = tmp_path / "out" / "part-00002.json"
    record = json.loads(path.read_text())
    if damage == "row":
        del record["rows"][3]
    elif damage == "bits":
        record["rows"][0]["bits"][0] = "0x3f80000"
    elif damage == "twice":
        record["rows"][0] = record["rows"][1]
    path.write_text(json.dumps(record)[: -100 if damage == "cut" else None])
    with pytest.raises(FormatError, match=r"part-00002.json"):
        refnet.evaluate(RESNEST, made, output=tmp_path / "out")


def test_command(made, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["evaluate", RESNEST, "--images", str(made), "-o", out, "--json"]) == 2
    record = json.loads(capsys.readouterr().out)
    assert (record["listed"], record["counted"], record["pipeline"]) == (30, 29, "digits")
    assert [one["id"] for one in record["unread"]] == ["3/ILSVRC2012_val_00000014.JPEG"]
    assert main(["evaluate", RESNEST, "--images", str(made), "-o", out]) == 2
    text = capsys.readouterr().out
    assert "1 image could not be read, neither right nor wrong:\n  3/ILSVRC2012_val_00000014.JPEG: " in text
    assert main(["evaluate", RESNEST]) == 0
    assert "top-1     357   360    99.17" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["resnest-50-pytorch", "--weights", "seed:0"], "name its images, a folder or a list"),
        ([RESNEST, "--images", "nowhere"], "images nowhere: is not a folder"),
        ([RESNEST, "--labels", "x.txt"], "labels x.txt: name the images too"),
        ([RESNEST, "--pipeline", "resnest"], "pipeline resnest makes [3, 224, 224]"),
        ([RESNEST, "--processes", "2", "--dask", "local:2"], "processes and dask: give one or the other"),
    ],
)
def test_wrong_usage_is_named(capsys, argv, message):
    assert main(["evaluate", *argv]) == 2
    assert message in capsys.readouterr().err
