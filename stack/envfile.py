"""The file ``.env``: the stack's settings, and where its passwords are (``passwords``)."""

from __future__ import annotations

import re
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from stack import passwords, wholefile
from stack.retention import SETTINGS, Setting
from stack.services import ROOT

FOLDER = "SECRETS_FOLDER"


class EnvFileError(Exception):
    """The file cannot be read or written; the message says what to do."""


def _host_name(path: Path) -> str:
    """This machine's name as a container may carry it: one label, 63 characters at most."""
    name = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname().partition(".")[0]).strip("-")
    return name[:63].rstrip("-") or "docker-host"


def _always(setting: Setting) -> Callable[[Path], str]:
    return lambda path: setting.default


def _folder(path: Path) -> str:
    """The folder of passwords beside an env file, one of its own."""
    if path == ROOT / ".env":
        return "./secrets"  # Compose reads it from the project's folder, which may be moved
    return str(path.parent / ("secrets" if path.name == ".env" else f"{path.name}.secrets"))


# What the compose file reads and has no default for, the machine's name, and what people want to change; each made for
# the path of the env file.
VARIABLES: Mapping[str, tuple[Callable[[Path], str], str]] = {
    FOLDER: (_folder, "folder of the passwords and keys; the data in Docker's volumes opens with these only"),
    "HOST_NAME": (_host_name, "this machine, as spans, logs and metrics call it"),
    **{setting.variable: (_always(setting), setting.meaning) for setting in SETTINGS},
}

_HEAD = """\
# Settings of the stack in docker-compose.yml, made by `./run stack init`. Ports can be set here too, e.g.
# KIBANA_PORT=5602.
"""


def init(path: Path) -> list[str]:
    """Write what is missing, file and passwords, and return, line by line, what was done.

    What is there stays as it is, but that passwords which an older file holds move into files of their own.
    """
    there = path.exists()
    known = read(path)
    held = {name: known[name] for name in passwords.MEANINGS if known.get(name)}
    try:
        done = passwords.init(_absolute(known.get(FOLDER) or _folder(path)), held)
    except passwords.PasswordError as error:
        raise EnvFileError(str(error)) from error
    before = path.read_text() if there else ""
    text = _without(before, passwords.MEANINGS) if any(name in known for name in passwords.MEANINGS) else before
    missing = [name for name in VARIABLES if not known.get(name)]
    if missing:
        text = _ended(text) + "".join(_line(name, path) for name in missing)
    if not there:
        _write(path, _HEAD + text)
        return [f"wrote {path} (mode 600) with {', '.join(VARIABLES)}", *done]
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077 or text != before:
        _write(path, text)
    if mode & 0o077:
        done.append(f"the mode of {path} was {mode:03o}, so that others could read it; it is 600 now")
    if missing:
        done.append(f"added to {path} what it did not have: {', '.join(missing)}")
    return done or [f"{path} and the passwords are there already; nothing was changed"]


def secrets_folder(path: Path) -> Path:
    """Return the folder of the passwords that an env file names."""
    return _absolute(read(path).get(FOLDER) or _folder(path))


def note(path: Path, values: Mapping[str, str]) -> None:
    """Set variables that are not for people to write, each in its place or at the end; raises ``EnvFileError``."""
    text = before = path.read_text()
    for name, value in values.items():
        text, found = re.subn(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        if not found:
            text = _ended(text) + f"{name}={value}\n"
    if text != before:
        _write(path, text)


def _absolute(folder: str) -> Path:
    return (ROOT / Path(folder).expanduser()).resolve()


def _without(text: str, names: Mapping[str, str]) -> str:
    """Return a file's text without the lines of some variables, and without what `init` had written above each."""
    lines: list[str] = []
    for line in text.splitlines():
        name, equals, _ = line.strip().removeprefix("export ").partition("=")
        if equals and name.strip() in names:
            if lines and lines[-1] == f"# {names[name.strip()]}":
                lines.pop()
        else:
            lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def _ended(text: str) -> str:
    """Return a text to which a line can be added."""
    return text if not text or text.endswith("\n") else f"{text}\n"


def _line(name: str, path: Path) -> str:
    make, meaning = VARIABLES[name]
    return f"# {meaning}\n{name}={make(path)}\n"


def _write(path: Path, text: str) -> None:
    """Write the file whole or not at all, for its owner alone."""
    try:
        wholefile.write(path, text, 0o600)
    except OSError as error:
        raise EnvFileError(f"{path} cannot be written ({error.strerror}); is it, and its folder, yours?") from error


def read(path: Path) -> dict[str, str]:
    """Return the file's variables; the last of a name counts, as with Compose. An absent file is an empty one."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise EnvFileError(f"{path} cannot be read ({error}); it must be a text file that you may read") from error
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not equals or name.startswith("#"):
            continue
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        else:
            value = re.sub(r"\s+#.*", "", value)
        found[name.strip()] = value
    return found
