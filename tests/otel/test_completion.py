"""``bulkscope completion``: Tab in real shells, on a terminal of their own."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bulkscope import _completion
from bulkscope._cli import COMMANDS
from tests.processes import BIN, PATIENCE_S

START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}  # fmt: skip
READY = {"zsh": "autoload -U compinit; compinit -u -D; "}


def script(shell: str) -> str:
    return subprocess.run([BIN / "bulkscope", "completion", shell], capture_output=True, text=True, check=True).stdout


def found(shell: str) -> str:
    where = shutil.which(shell)
    if where is None:
        pytest.skip(f"{shell} is not installed: apt-get install {shell}")
    return where


class Terminal:
    """A shell on a terminal, at which keys are pressed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.shown = ""

    def press(self, keys: str, until: str) -> None:
        """Press keys, and wait until the shell has shown ``until`` after that."""
        os.write(self._descriptor, keys.encode())
        self.shown, end = "", time.monotonic() + PATIENCE_S / 6
        while until not in self.shown:
            assert time.monotonic() < end, f"{keys!r}: {self.shown!r}"
            if select.select([self._descriptor], [], [], 0.2)[0]:
                self.shown += os.read(self._descriptor, 65536).decode(errors="replace")


@contextmanager
def terminal(shell: str, folder: Path) -> Iterator[Terminal]:
    file = folder / f"completion.{shell}"
    file.write_text(script(shell))
    pid, descriptor = pty.fork()
    if not pid:
        os.chdir(folder)
        home = {"HOME": str(folder), "TERM": "dumb", "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        os.execve(found(shell), START[shell], home)
    try:
        there = Terminal(descriptor)
        there.press(f"{READY.get(shell, '')}source {file}; echo re''ady\n", "ready")
        yield there
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(descriptor)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_tab_completes_commands_options_and_choices(shell: str, tmp_path: Path) -> None:
    found(shell)
    (tmp_path / "store.duckdb").touch()
    with terminal(shell, tmp_path) as keys:
        # What comes is what was not typed.
        keys.press("\x15bulkscope expo\t", "rt ")  # `explain` begins so too
        keys.press("--forma\t", "t")
        keys.press("\x15bulkscope export --format pa\t", "rquet ")
        keys.press("--db sto\t", "re.duckdb ")
        keys.press("\x15bulkscope export --format=ar\t", "row ")
        keys.press("\x15bulkscope watch la\t", "test ")
        keys.press("\x15bulkscope runs ke\t", "ep ")
        keys.press("--rep\t", "lace ")
        keys.press("\x15bulkscope runs \t\t", "show")
        assert "drop" in keys.shown


def test_fish_offers_commands_options_and_choices(tmp_path: Path) -> None:
    file = tmp_path / "completion.fish"
    file.write_text(script("fish"))

    def offered(line: str) -> list[str]:
        words = [found("fish"), "--no-config", "-c", f"source {file}; complete -C '{line}'"]
        shown = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert shown.stderr == ""
        return [each.partition("\t")[0] for each in shown.stdout.splitlines()]

    assert offered("bulkscope ex") == ["explain", "export"]
    assert offered("bulkscope export --forma") == ["--format"]
    assert offered("bulkscope export --format pa") == ["parquet"]
    assert offered("bulkscope export --format=pa") == ["--format=parquet"]
    assert offered("bulkscope watch la") == ["latest"]
    assert set(offered("bulkscope runs ")) == {"drop", "keep", "list", "show"}
    assert offered("bulkscope runs keep --rep") == ["--replace"]
    (tmp_path / "store.duckdb").touch()
    assert offered("bulkscope export --db sto") == ["store.duckdb"]


def test_every_command_and_option_is_known() -> None:
    known = _completion.commands()
    assert known.keys() == COMMANDS.keys()
    # What `run` takes is the command that it starts.
    assert [name for name, each in known.items() if not each.options] == ["run"]
    for name in COMMANDS.keys() - {"run"}:
        shown = subprocess.run([BIN / "bulkscope", name, "--help"], capture_output=True, text=True, check=True).stdout
        for option in known[name].options:
            assert option.names[-1] in shown
    for shell in _completion.SHELLS:
        assert all(name in script(shell) for name in COMMANDS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_can_be_read(shell: str, tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text(script(shell))
    subprocess.run([found(shell), "-n", str(file)], check=True)


def test_without_the_studio_commands_are_completed_all_the_same() -> None:
    """A service carries `bulkscope` alone: what its commands would take is not known there."""
    code = (
        "import sys; sys.modules['bulkscope_studio'] = None; from bulkscope import _completion as c;"
        "known = c.commands(); assert known['doctor'].options and not known['report'].options;"
        "print(c.bash(known), end='')"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "report" in shown


def test_a_parser_is_left_as_it_was() -> None:
    import argparse

    before = argparse.ArgumentParser.parse_args
    _completion.commands()
    assert argparse.ArgumentParser.parse_args is before
