"""Whatever a name holds, it shows as it is and does nothing: on the terminal, in JSON and in Markdown."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.table import Table
from rich.text import Text

import bulkscope_studio
from bulkscope_studio.cli import bulks, capacity, compare, explain, report, watch, whatif
from bulkscope_studio.rendering import output
from bulkscope_studio.rendering.output import Output, as_json, lines
from bulkscope_studio.storage.store import Store
from bulkscope_studio.text.markdown import inline
from tests import chance
from tests.processes import BIN
from tests.rows import add
from tests.studio import odd

# An escape and an operating system command, markup of rich's that closes what was not opened, its emoji, a C1 control,
# a bidirectional override, a line's end, and Markdown: a cell's end, an image, HTML, an entity.
HOSTILE = (
    "m\x1b[31m\x1b]0;own\x07", "llama[/bold]3", "models/[red]q4", ":smile:", "c1\x9b31m", "bidi\u202eexe.\u2066",
    "two\nlines\r", "a|b\\|c", "![p](http://evil.example/p.png)", "<img src=http://evil.example/q.png>", "&lt;b&gt;",
    "**bold** _slanted_ `code`", "# head", "1. one", "[a]: http://evil.example", "~~gone~~",
)  # fmt: skip
NAMES = (" ".join(HOSTILE[:7]), HOSTILE[1], " ".join(HOSTILE[7:]))
# What a terminal takes for a command, or for a turn of the direction.
LIVE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
STUDIO = Path(bulkscope_studio.__file__).parent


def shown(name: str) -> str:
    """Return a name as it is to be read."""
    return "".join(each if each.isprintable() else "\ufffd" for each in name)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store in which every name is hostile, with a bulk of each of them."""
    db = tmp_path_factory.mktemp("hostile") / "s.duckdb"
    store = Store(db)
    now = time.time_ns()
    names = ("model", "queue", "task", "error_type", "failure_domain", "outcome", "provider", "status_message", "name")
    for number, name in enumerate(NAMES):
        rows = odd.bulk(name, now - number * odd.MINUTE, jobs=10, resource=f"r{number}")
        for row in rows:
            row.update({key: name for key in names if key in row and key != "outcome"})
            row.update(
                {key: f"{row[key]}{name}" for key in ("host_name", "service_instance_id", "job_id") if row.get(key)}
            )
            if row["kind"] == "CONSUMER" and row["job_id"].startswith(f"{name}-3"):
                row.update(status="ERROR", error_type=name, failure_domain=name)
        add(store.connection(), "spans", rows)
        limits = json.dumps({"bulk.worker.cpu.set": name, "bulk.worker.cpus": 2})
        add(store.connection(), "resources", [{"resource_id": f"r{number}", "attributes": limits}])
        add(store.connection(), "ingest", [
            {"time_ns": now - number * odd.MINUTE - 21 * odd.SECOND, "signal": "traces", "transport": "http",
             "outcome": "refused", "reason": name, "records": 3}
        ])  # fmt: skip
    store.close()
    return db


Command = Callable[[list[str]], int]
COMMANDS: dict[str, tuple[Command, Callable[[str], list[str]], tuple[str, ...]]] = {
    "bulks": (bulks.command, lambda name: [], ("text", "json")),
    "report": (report.command, lambda name: [name], ("text", "json", "md")),
    "report --full": (report.command, lambda name: [name, "--full"], ("text",)),
    "report --by": (report.command, lambda name: [name, "--by", "host"], ("text", "json", "md")),
    "explain": (explain.command, lambda name: [name, "--all"], ("text", "json", "md")),
    "watch": (watch.command, lambda name: [name], ("text", "json")),
    "whatif": (whatif.command, lambda name: [name, "--workers", "4"], ("text", "json", "md")),
    "capacity": (capacity.command, lambda name: [name], ("text", "json", "md")),
    "compare": (compare.command, lambda name: [name, NAMES[0]], ("text", "json", "md")),
}


@pytest.mark.parametrize(
    ("command", "form"), [(name, form) for name, (_, _, forms) in COMMANDS.items() for form in forms]
)
def test_names_from_outside_show_as_they_are(
    hostile: Path, command: str, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, words, _ = COMMANDS[command]
    for name in NAMES:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(output, "_WIDE", 4000)  # else a table folds what is long
            code = 1 if command == "watch" else 0  # a job of each bulk has failed
            assert run([*words(name), "--db", str(hostile), "--format", form]) == code
        out, err = capsys.readouterr()
        assert not LIVE.search(out + err), (name, LIVE.findall(out + err))
        if form == "text":
            assert shown(name) in out
        elif form == "json":
            assert name in strings(json.loads(out))
        else:
            assert shown(name.replace("\n", " ")).strip() in prose(out)


def strings(found: object) -> str:
    """Return all strings of an answer."""
    if isinstance(found, dict):
        return "\0".join(strings(each) for each in found.values())
    return "\0".join(map(strings, found)) if isinstance(found, list) else str(found)


def test_unknown_names_are_told_harmlessly(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run, words, _ in list(COMMANDS.values())[1:]:
        for name in NAMES:
            assert run(["--db", str(hostile), *words(f"x{name}y")]) == 2
            out, err = capsys.readouterr()
            assert not LIVE.search(out + err)


def test_a_word_stays_whole_and_a_narrow_terminal_has_fewer_columns() -> None:
    name = "0123456789-" * 8
    rows = [[name, "a sentence of some words", "3", "4"], ["b", "c", "5", "6"]]
    heads = ("bulk", "what it is", "jobs", "failed")

    def shown(width: int, spare: tuple[int, ...]) -> str:
        written = io.StringIO()
        Output(file=written, width=width).print_table(heads, rows, right=(2, 3), spare=spare)
        return written.getvalue()

    for width in (20, 60, 100, 200):
        assert name in shown(width, ())
        assert name in shown(width, (1, 3, 2))
    assert "failed" not in shown(60, (1, 3, 2))
    assert "failed" in shown(60, ())
    assert "a sentence of some words" in shown(200, (1, 3, 2))
    # What is dropped for want of room comes back where a narrower one after it leaves it.
    assert "failed" in shown(len(name) + 25, (3, 1, 2))
    written = io.StringIO()
    Output(file=written, width=30).print(f"a long sentence about the bulk {name} that is longer than a line")
    assert name in written.getvalue()


@pytest.mark.parametrize(
    "words", [["report"], ["report", "--full"], ["bulks"], ["explain"], ["report", "--format", "json"]]
)
def test_nobody_reads_on(hostile: Path, words: list[str]) -> None:
    """`bulkscope ... | head`: no traceback, and the exit code of what SIGPIPE ends."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [BIN / "bulkscope", *words, "--db", str(hostile)], stdout=writing, stderr=subprocess.PIPE, timeout=300,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def in_terminal(words: list[str], columns: int, **environment: str) -> tuple[str, int]:
    """Return what a command writes on a terminal of so many columns, and its exit code."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(BIN / "bulkscope", ["bulkscope", *words], os.environ | environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    written = b""
    with contextlib.suppress(OSError):  # Linux says so at the end
        while more := os.read(terminal, 65536):
            written += more
    os.close(terminal)
    return written.decode().replace("\r\n", "\n"), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_colours_are_left_out_where_they_are_not_wanted(db: Path) -> None:
    words = ["report", "sample-001", "--by", "worker", "--db", str(db)]
    colour = re.compile("\x1b\\[[0-9;]*(3[0-9]|4[0-9]|9[0-7])m")
    plain, code = in_terminal(words, 60, NO_COLOR="1", TERM="xterm-256color")
    assert code == 0
    assert not colour.search(plain)
    # The dumb terminal knows no command at all.
    dumb, code = in_terminal(words, 60, TERM="dumb")
    assert (code, "\x1b" in dumb) == (0, False)


def test_watching_on_a_dumb_terminal_is_a_line_for_each_change(db: Path) -> None:
    said, code = in_terminal(["watch", "sample-001", "--db", str(db)], 80, TERM="dumb")
    assert code == 1
    assert "sample-001: 12 of 12 jobs, 1 failed (model 1), complete" in said
    assert "\x1b" not in said


def test_what_takes_long_says_so_where_errors_go(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(output, "PATIENCE_S", 0.01)
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with output.Waiting("bulkscope report: reading,"):
        for _ in range(1000):
            if "reading, 2 s" in terminal.getvalue():
                break
            time.sleep(0.01)
    assert terminal.getvalue().startswith("\rbulkscope report: reading, 1 s\rbulkscope report: reading, 2 s")
    assert terminal.getvalue().endswith("\r\x1b[2K")
    monkeypatch.setattr("sys.stderr", piped := io.StringIO())
    with output.Waiting("x"):
        time.sleep(0.05)
    assert piped.getvalue() == ""


def tokens(text: str) -> list[Token]:
    """Return what a text of Markdown is made of, tables included."""
    found: list[Token] = []
    for token in MarkdownIt("commonmark").enable("table").enable("strikethrough").parse(text):
        found += [token, *(token.children or [])]
    return found


def prose(text: str) -> str:
    """Return what a reader of Markdown sees; it may not hold anything live."""
    found = tokens(text)
    assert {each.type for each in found} & {"image", "link_open", "html_inline", "html_block", "code_inline"} == set()
    return "\n".join("".join(part.content for part in each.children or []) for each in found if each.type == "inline")


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_shows_a_name_as_it_is(name: str) -> None:
    wanted = shown(name.replace("\n", " ")).strip()
    assert prose(inline(name)) == wanted
    assert prose(f"- {inline(name)}") == wanted
    cells = [
        each for each in tokens(f"| a | b |\n|---|---|\n| {inline(name)} | {inline(name)} |") if each.type == "inline"
    ]
    assert ["".join(part.content for part in each.children or []) for each in cells] == ["a", "b", wanted, wanted]


@pytest.mark.chance
def test_markdown_of_random_punctuation_shows_as_it_is() -> None:
    rng = chance.rng(5)
    for _ in range(3000 * chance.TIMES):
        name = "".join(rng.choice("\\|`*_[]()<>!&;#~-+=.1:a/ \"'") for _ in range(rng.randrange(1, 12))).strip()
        if not name:
            continue
        # Runs of spaces are one to a reader.
        row = [each for each in tokens(f"| a |\n|---|\n| {inline(name)} |") if each.type == "inline"]
        assert ["".join(part.content for part in each.children or []) for each in row] == ["a", name], repr(name)
        assert prose(f"x\n\n- {inline(name)}") == f"x\n{name}", repr(name)


def test_no_style_of_a_sender_reaches_the_terminal() -> None:
    written = io.StringIO()
    console = Output(file=written, width=200)
    table = Table(title=HOSTILE[0])
    table.add_column(HOSTILE[1])
    for name in HOSTILE:
        table.add_row(name)
        console.print(name, Text(name), style="bold")
    console.print(table)
    said = written.getvalue()
    assert not LIVE.search(said)
    for name in HOSTILE:
        assert said.count(shown(name)) >= 2, name


def test_styles_of_ours_do_on_a_terminal() -> None:
    written = io.StringIO()
    console = Output(file=written, width=80)
    console._force_terminal = True
    console.print("[/bold]\x1b[31mx", style="bold")
    assert "[/bold]\ufffd[31mx" in written.getvalue()


def test_json_holds_the_name_and_no_command() -> None:
    text = as_json({"names": list(HOSTILE), "more": "\U000e0001 é 批"})
    assert not LIVE.search(text)
    assert json.loads(text)["names"] == list(HOSTILE)
    assert "é 批" in text
    assert "\U000e0001" not in text


def test_a_message_keeps_its_lines() -> None:
    assert lines("one\x1b[31m\ntwo") == "one\ufffd[31m\ntwo"


def test_there_is_no_other_way_out() -> None:
    """A ``print`` or a console of its own would write what a sender named."""
    for path in STUDIO.rglob("*.py"):
        if path.name == "output.py":
            continue
        called = {
            ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        }
        assert called & {"print", "Console", "sys.stdout.write", "sys.stderr.write", "rich.print"} == set(), path
