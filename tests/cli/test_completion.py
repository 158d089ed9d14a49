"""The completion script, in the shell that reads it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys

import pytest

from refnet.cli import COMMANDS, main
from refnet.models.catalog import entries


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "refnet", "--completion", "bash"], capture_output=True, text=True, check=True
    )
    path = tmp_path_factory.mktemp("completion") / "refnet.bash"
    path.write_text(done.stdout)
    return str(path)


def completed(script: str, line: str) -> list[str]:
    """What bash offers for the last word of a line."""
    words = line.split(" ")
    listed = " ".join(map(shlex.quote, words))
    function = "fn=$(complete -p refnet | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
    code = f"""source {shlex.quote(script)}; {function}
    COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; "$fn"; printf '%s\\n' "${{COMPREPLY[@]}}" """
    bash = shutil.which("bash")
    assert bash, "bash is needed"
    done = subprocess.run([bash, "--norc", "-c", code], capture_output=True, text=True, check=True)
    return sorted(done.stdout.split())


def test_bash_completes_commands_options_values_and_networks(script):
    assert completed(script, "refnet ver") == ["verify"]
    names = {module.__name__.rpartition(".")[2] for module in COMMANDS}
    assert names <= set(completed(script, "refnet "))
    assert completed(script, "refnet run --ker") == ["--kernels"]
    assert completed(script, "refnet run --kernels f") == ["fast"]
    assert completed(script, "refnet export resnest-digits --to o") == ["onnx"]
    assert completed(script, "refnet summary resnest-dig") == ["resnest-digits"]
    assert set(completed(script, "refnet summary octave")) == {n for n in entries() if n.startswith("octave")}
    assert completed(script, "refnet verify x --model resnest-dig") == ["resnest-digits"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_each_shell_has_a_script_with_every_command(shell, capsys):
    assert main([f"--completion={shell}"]) == 0
    out = capsys.readouterr().out
    for module in COMMANDS:
        assert re.search(rf"\b{module.__name__.rpartition('.')[2]}\b", out)


def test_another_shell_is_refused(capsys):
    assert main(["--completion", "bsh"]) == 2
    assert "'bsh' is not one of bash, zsh, tcsh; did you mean bash or zsh?" in capsys.readouterr().err


def test_without_shtab_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--completion", "bash"]) == 2
    assert 'pip install "refnet[completion]"' in capsys.readouterr().err
