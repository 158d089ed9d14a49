"""Console blocks of docs: commands that need nothing but refnet run, and print what the page says."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator

import pytest

from refnet.cli import main, parse
from refnet.models.weights import shipped_folder
from tests.test_docs import ALL, ROOT, blocks

PAGES = [*ALL, "CONTRIBUTING.md", "weights/README.md", "docs/learn/README.md"]
CHECK = "refnet golden --check golden.json"
RUN = {
    "docs/cli.md": [
        "refnet --completion bash > ~/.local/share/bash-completion/completions/refnet",
        "refnet --completion zsh > ~/.zfunc/_refnet",
    ],
    "docs/evaluate.md": ["refnet evaluate resnest-digits"],
    "docs/golden.md": [
        "refnet run resnest-digits --arithmetic golden",
        "refnet run resnest-digits --arithmetic golden --profile",
        f"{CHECK} --input seed:1",
    ],
}
"""Page -> the commands that this file runs, each in an empty folder, without what `>` does."""
FRAMEWORK, TIMING = "needs a framework", "prints timings: tests/test_performance_page.py"
CROSSCHECK = "a cross-check, minutes to days"
OWN = "DIR, MODEL and such stand for the reader's own files: tests/cli, tests/verification"
WHY_NOT = {
    "docs/golden.md": {
        "refnet golden resnest-50-pytorch --weights seed:0 --input seed:0 -o golden.json": "ships: see below",
        CHECK: "the shipped file: tests/verification/test_golden_files.py",
        'pytest --golden-update --golden-reason "the new pooling"': "tests/test_pytest_plugin.py",
    },
    "docs/numerics.md": {
        "refnet prove sigmoid --state sigmoid.state": "minutes: tests/prove/test_prove.py has slices",
        "refnet prove exp --slice 3/64": "ten seconds: tests/prove/test_prove.py has smaller slices",
        "refnet prove sigmoid --framework torch": FRAMEWORK,
        "refnet prove softmax --framework mxnet --slice 1/16 --environment DNNL_MAX_CPU_ISA=SSE41": FRAMEWORK,
        "refnet prove sigmoid --framework torch --formula glibc": FRAMEWORK,
        "bash .ci/environments.sh": FRAMEWORK,
        "REFNET_ORACLE_ELEMENTS=100000 .venv/bin/python": CROSSCHECK,
        ".venv/bin/python -m pytest -m crosscheck": CROSSCHECK,
    },
    "docs/performance.md": {
        "refnet bench": TIMING,
        "python -m tests.figures": "writes what tests/figures compares",
    },
    "docs/replay.md": {
        "refnet run resnest-50-pytorch cat.jpg": OWN,
        "refnet bench": TIMING,
        "refnet reveal": FRAMEWORK,
        "python -m tests.crosscheck": CROSSCHECK,
    },
    "docs/reveal.md": {"refnet reveal": FRAMEWORK},
    "docs/tables.md": {"python -m tests.crosscheck": CROSSCHECK},
    "docs/third-party.md": {
        "refnet capture": FRAMEWORK,
        "refnet verify caps/": "judges a capture that a framework made",
        "refnet run oct_resnet50.onnx cat.jpg": OWN,
    },
    "docs/learn/README.md": {"refnet learn": "tests/learn"},
    "docs/verify.md": {
        "refnet verify DIR": OWN,
        "refnet capture torch": FRAMEWORK,
        "refnet verify caps": OWN,
        "python -m tests.crosscheck": CROSSCHECK,
    },
}
"""Page -> how a command begins that is not run here -> why."""


def consoles(page: str) -> Iterator[tuple[str, str]]:
    """(command, output) of each command in a page's console blocks, without its comment; not Python's."""
    for language, content in blocks((ROOT / page).read_text(encoding="utf-8")):
        if language == "console" and not content.startswith(">>> "):
            assert content.startswith("$ "), content
            for one in re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]:
                command, _, output = one.partition("\n")
                yield re.sub(r"\s+# .*", "", command), output


SHOWN = {page: list(consoles(page)) for page in PAGES if page != "README.md"}


@pytest.mark.parametrize("page", [page for page, shown in SHOWN.items() if shown])
def test_each_command_is_run_or_says_why_not(page):
    run, why_not = RUN.get(page, []), WHY_NOT.get(page, {})
    commands = [command for command, _ in SHOWN[page]]
    for command in commands:
        assert (command in run) + any(map(command.startswith, why_not)) >= 1, command
    assert set(run) <= set(commands)
    for beginning in why_not:
        assert any(one.startswith(beginning) for one in commands if one not in run), beginning


def test_what_needs_no_framework_and_has_an_output_is_run():
    """So a page cannot show an output that nobody compares: of what is not run, few show any."""
    quiet = {
        page: [c for c, output in shown if output and c not in RUN.get(page, [])]
        for page, shown in SHOWN.items()
    }
    left = {page: commands for page, commands in quiet.items() if commands and page != "docs/performance.md"}
    assert left == {"docs/golden.md": list(WHY_NOT["docs/golden.md"])[:2]}


@pytest.mark.parametrize(("page", "command"), [(page, command) for page in RUN for command in RUN[page]])
def test_a_command_prints_what_the_page_says(page, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if command.startswith(CHECK):
        shutil.copy(shipped_folder() / "golden" / "resnest-50-pytorch-seed-0.json", "golden.json")
    said = dict(SHOWN[page])[command]
    code = main(shlex.split(command.partition(" > ")[0])[1:])
    printed = capsys.readouterr().out
    assert code == (1 if "different" in said else 0)
    assert len(printed) > 100
    if said:
        assert printed.rstrip() == said.rstrip()


def test_the_golden_file_that_the_page_writes_is_the_one_that_ships():
    """Its network and sources; test_golden_files.py checks its values, the test above the page's hashes."""
    from refnet.formats.golden_file import read

    file = read(shipped_folder() / "golden" / "resnest-50-pytorch-seed-0.json")
    write, check = [(c, o) for c, o in SHOWN["docs/golden.md"] if c in WHY_NOT["docs/golden.md"]][:2]
    sources = (file.sources.model, file.sources.weights, file.sources.input)
    said = shlex.split(write[0])
    assert sources == (said[2], said[said.index("--weights") + 1], said[said.index("--input") + 1])
    assert write[1].strip() == f"golden.json: {len(file.values)} values"
    assert check[1].strip() == f"golden.json: equal, {len(file.values)} values"


def written() -> Iterator[tuple[str, str]]:
    """(page, command line) of each refnet command in any block that is a shell's; folded lines are joined."""
    for page in PAGES:
        for language, content in blocks((ROOT / page).read_text(encoding="utf-8")):
            if language in {"console", "sh"}:
                for line in content.replace("\\\n", " ").split("\n"):
                    found = re.search(r"(?:^|&& |\$ )(?:\.venv/bin/)?refnet (.*)", line)
                    if language == "console" and not line.startswith("$ "):
                        continue  # output
                    if found:
                        yield page, re.sub(r"\s+# .*| [>|] .*", "", found[1])


@pytest.mark.parametrize(("page", "command"), sorted(set(written())))
def test_refnet_knows_the_commands_and_options_of_every_block(page, command, capsys):
    """Also of those that need a framework: parsed, not run."""
    arguments = parse(shlex.split(command))
    assert arguments is not None or "--completion" in command
