"""``bulkscope completion SHELL``: commands, options and their choices on Tab.

A script of a few kB, made of the parsers of the commands that are installed here: a Tab starts no Python. shtab makes
none for fish, and argcomplete runs the whole command at each Tab (0.5 s with the studio's libraries).
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

SHELLS = ("bash", "zsh", "fish")
_EPILOG = """install it for good:
  bash   bulkscope completion bash > ~/.local/share/bash-completion/completions/bulkscope
  zsh    bulkscope completion zsh > "${fpath[1]}/_bulkscope"
  fish   bulkscope completion fish > ~/.config/fish/completions/bulkscope.fish

or for this shell alone:
  source <(bulkscope completion bash)        (fish: bulkscope completion fish | source)"""
_MOST_HELP = 70
# Arguments that name a bulk, which may be called so.
_BULKS, _LATEST = ("bulk", "bulks", "a", "b"), "latest"


@dataclass
class _Value:
    """What may stand somewhere: one of ``words``, a file, or what nobody can guess."""

    words: tuple[str, ...] = ()
    files: bool = False


@dataclass
class _Option:
    names: tuple[str, ...]
    help: str
    value: _Value | None  # None: takes none


@dataclass
class _Command:
    help: str
    options: list[_Option] = field(default_factory=list)
    value: _Value = field(default_factory=_Value)
    actions: dict[str, _Command] = field(default_factory=dict)


def command(argv: list[str]) -> int:
    """Print the script for a shell; 0 when printed."""
    parser = argparse.ArgumentParser(
        "bulkscope completion", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG,
        description="Print a script that lets a shell complete commands, options and their choices.",
    )  # fmt: skip
    parser.add_argument("shell", choices=SHELLS)
    print(_SCRIPTS[parser.parse_args(argv).shell](commands()), end="", flush=True)
    return 0


class _Built(Exception):
    """A command has made its parser."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def commands() -> dict[str, _Command]:
    """Return what is known of each command; of one whose package is not installed, its line of help."""
    from bulkscope._cli import COMMANDS

    found = {}
    for name, (module, says) in COMMANDS.items():
        try:
            parser = parser_of(import_module(module).command)
        except ModuleNotFoundError:
            parser = None
        found[name] = _Command(says) if parser is None else _of(parser, says)
    return found


def parser_of(command: Callable[[list[str]], object]) -> argparse.ArgumentParser | None:
    """Return the parser of a command, which makes it and gives it the arguments first of all; None of one without."""

    def built(self: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        raise _Built(self)

    reads = argparse.ArgumentParser.parse_args
    argparse.ArgumentParser.parse_args = built  # type: ignore[method-assign]
    try:
        with redirect_stdout(io.StringIO()):
            command(["--help"])
    except _Built as found:
        return found.parser
    finally:
        argparse.ArgumentParser.parse_args = reads  # type: ignore[method-assign]
    return None


def _of(parser: argparse.ArgumentParser, says: str) -> _Command:
    found = _Command(says)
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue
        if isinstance(action, argparse._SubParsersAction):
            helps = {each.dest: each.help or "" for each in action._choices_actions}
            found.actions = {name: _of(of, helps.get(name, "")) for name, of in action.choices.items()}
        elif action.option_strings:
            takes = action.nargs != 0
            found.options.append(
                _Option(tuple(action.option_strings), _line(action), _value(action) if takes else None)
            )
        else:
            more = _value(action)
            found.value = _Value((*found.value.words, *more.words), found.value.files or more.files)
    return found


def _value(action: argparse.Action) -> _Value:
    words = tuple(str(each) for each in action.choices or ())
    if not action.option_strings and action.dest in _BULKS:
        words += (_LATEST,)
    return _Value(words, action.type is Path)


def _line(action: argparse.Action) -> str:
    """Return what an option's help begins with."""
    try:
        text = (action.help or "") % {**vars(action), "prog": ""}
    except (KeyError, ValueError, TypeError):
        text = action.help or ""
    text = " ".join(text.split()).partition("; ")[0]
    return text if len(text) <= _MOST_HELP else text[: _MOST_HELP - 1].rpartition(" ")[0] + " …"


def _all(known: dict[str, _Command]) -> Iterator[tuple[tuple[str, ...], _Command]]:
    """Yield each command and each action of one, by the words that lead to it."""
    for name, each in known.items():
        yield (name,), each
        for action, of in each.actions.items():
            yield (name, action), of


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _found(known: dict[str, _Command]) -> str:
    """Return the cases that tell by a word, and the command before it, which command it is."""
    return "\n".join(
        f"            {_quoted('/'.join(path[:-1]) + ' ' + path[-1])}) at={_quoted('/'.join(path))} ;;"
        for path, _ in _all(known)
    )


def _cases(known: dict[str, _Command], offer: Callable[[_Value], str]) -> str:
    """Return the cases that offer what an option takes."""
    lines = []
    for path, each in _all(known):
        for option in each.options:
            if option.value is not None:
                names = "|".join(_quoted(f"{'/'.join(path)} {name}") for name in option.names)
                lines.append(f"        {names}) {offer(option.value)}; return ;;")
    return "\n".join(lines)


def bash(known: dict[str, _Command]) -> str:
    """Return the script for bash, 3.2 and later."""

    def offer(value: _Value) -> str:
        if value.files:
            return "_bulkscope_files"
        return f'COMPREPLY=($(compgen -W {_quoted(" ".join(value.words))} -- "$word"))' if value.words else ":"

    words = [f"        '') options='--help --version'; values={_quoted(' '.join(known))} ;;"]
    for path, each in _all(known):
        names = " ".join(name for option in each.options for name in option.names)
        values = " ".join((*each.actions, *each.value.words))
        files = " files=1;" if each.value.files else ""
        words.append(
            f"        {_quoted('/'.join(path))}) options={_quoted(names)}; values={_quoted(values)};{files} ;;"
        )
    return f"""# Completion of bulkscope for bash, made by 'bulkscope completion bash'.
_bulkscope_files() {{
    compopt -o filenames 2>/dev/null
    local IFS=$'\\n'
    COMPREPLY=($(compgen -f -- "$word"))
}}

_bulkscope() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} at='' options='' values='' files='' i
    COMPREPLY=()
    # bash takes '=' for a word.
    if [ "$word" = '=' ]; then word=''
    elif [ "$before" = '=' ]; then before=${{COMP_WORDS[COMP_CWORD-2]}}; fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$at ${{COMP_WORDS[i]}}" in
{_found(known)}
        esac
    done
    if [ "$at" = run ]; then
        if [ "$COMP_CWORD" = 2 ]; then COMPREPLY=($(compgen -c -- "$word")); else _bulkscope_files; fi
        return
    fi
    case "$at $before" in
{_cases(known, offer)}
    esac
    case "$at" in
{chr(10).join(words)}
    esac
    case "$word" in
        -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
        *) COMPREPLY=($(compgen -W "$values" -- "$word"))
           if [ -n "$files" ]; then _bulkscope_files; fi ;;
    esac
}}
complete -F _bulkscope bulkscope
"""


def zsh(known: dict[str, _Command]) -> str:
    """Return the script for zsh, to be sourced or to stand in a folder of ``fpath``."""

    def offer(value: _Value) -> str:
        if value.files:
            return "_files"
        return f"compadd -- {' '.join(map(_quoted, value.words))}" if value.words else "_message value"

    def described(pairs: list[tuple[str, str]]) -> str:
        return " ".join(_quoted(name.replace(":", "\\:") + (f":{says}" if says else "")) for name, says in pairs)

    commands = described([(name, each.help) for name, each in known.items()])
    words = [f"        '') options=('--help:show the commands' '--version'); values=({commands}) ;;"]
    for path, each in _all(known):
        options = described([(name, option.help) for option in each.options for name in option.names])
        values = described([(name, of.help) for name, of in each.actions.items()] + [(w, "") for w in each.value.words])
        files = " files=1" if each.value.files else ""
        words.append(f"        {_quoted('/'.join(path))}) options=({options}); values=({values});{files} ;;")
    return f"""#compdef bulkscope
# Completion of bulkscope for zsh, made by 'bulkscope completion zsh'.
_bulkscope() {{
    local at='' files='' before=${{words[CURRENT-1]}} word
    local -a options values
    for word in ${{words[2,CURRENT-1]}}; do
        case "$at $word" in
{_found(known)}
        esac
    done
    if [[ $at == run ]]; then
        if (( CURRENT == 3 )); then _command_names -e; else _files; fi
        return
    fi
    if [[ $PREFIX == --*=* ]]; then
        before=${{PREFIX%%=*}}
        compset -P '*='
    fi
    case "$at $before" in
{_cases(known, offer)}
    esac
    case "$at" in
{chr(10).join(words)}
    esac
    if [[ $PREFIX == -* ]]; then
        _describe -o option options
    else
        (( ${{#values}} )) && _describe value values
        [[ -n $files ]] && _files
    fi
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _bulkscope "$@"; else compdef _bulkscope bulkscope; fi
"""


def fish(known: dict[str, _Command]) -> str:
    """Return the script for fish."""

    def text(given: str) -> str:
        return "'" + given.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def offer(value: _Value) -> str:
        return " -r -F" if value.files else f" -x -a {text(' '.join(value.words))}" if value.words else " -x"

    lines = [
        "# Completion of bulkscope for fish, made by 'bulkscope completion fish'.",
        "function __bulkscope_at",
        "    set -l words (commandline -opc)",
        "    for number in (seq (count $argv))",
        "        set -l at (math $number + 1)",
        '        test "$words[$at]" = "$argv[$number]"; or return 1',
        "    end",
        "end",
        "complete -c bulkscope -f",
        "complete -c bulkscope -n 'test (count (commandline -opc)) -eq 1' -l help -d 'show the commands'",
        "complete -c bulkscope -n 'test (count (commandline -opc)) -eq 1' -l version",
        "complete -c bulkscope -n '__bulkscope_at run' -a '(__fish_complete_subcommand --fcs-skip=2)'",
    ]
    for name, each in known.items():
        at = "-n 'test (count (commandline -opc)) -eq 1'"
        lines.append(f"complete -c bulkscope {at} -a {name} -d {text(each.help)}")
    for path, each in _all(known):
        at = f"complete -c bulkscope -n '__bulkscope_at {' '.join(path)}'"
        for action, of in each.actions.items():
            lines.append(f"{at} -a {action} -d {text(of.help)}")
        for word in each.value.words:
            lines.append(f"{at} -a {word}")
        if each.value.files:
            lines.append(f"{at} -F")
        for option in each.options:
            names = "".join(f" -l {n[2:]}" if n.startswith("--") else f" -s {n[1:]}" for n in option.names)
            taken = "" if option.value is None else offer(option.value)
            lines.append(f"{at}{names}{taken} -d {text(option.help)}")
    return "\n".join(lines) + "\n"


_SCRIPTS = {"bash": bash, "zsh": zsh, "fish": fish}
