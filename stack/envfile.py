"""The file ``.env``: the stack's passwords and keys, made once on this machine and kept there, and its settings."""

from __future__ import annotations

import os
import re
import secrets
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from stack.retention import SETTINGS, Setting


class EnvFileError(Exception):
    """The file cannot be read or written; the message says what to do."""


def _secret() -> str:
    # 128 bits as 32 characters that mean nothing to a shell, to YAML, to curl or to Compose's own ${...}; Kibana's
    # encryption keys must have 32 at least.
    return secrets.token_hex(16)


def _host_name() -> str:
    """This machine's name as a container may carry it: one label, 63 characters at most."""
    name = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname().partition(".")[0]).strip("-")
    return name[:63].rstrip("-") or "docker-host"


def _always(setting: Setting) -> Callable[[], str]:
    return lambda: setting.default


# What the compose file reads and has no default for, the machine's name, and what people want to change.
VARIABLES: Mapping[str, tuple[Callable[[], str], str]] = {
    "ELASTIC_PASSWORD": (_secret, "of the user 'elastic', with which people log in to Kibana"),
    "KIBANA_SYSTEM_PASSWORD": (_secret, "with which Kibana talks to Elasticsearch"),
    "KIBANA_SECURITY_KEY": (_secret, "encrypts Kibana's sessions"),
    "KIBANA_SAVED_OBJECTS_KEY": (_secret, "encrypts what Kibana saves: without it, that cannot be read again"),
    "KIBANA_REPORTING_KEY": (_secret, "encrypts Kibana's reports"),
    "HOST_NAME": (_host_name, "this machine, as spans, logs and metrics call it"),
    **{setting.variable: (_always(setting), setting.meaning) for setting in SETTINGS},
}

_HEAD = """\
# Passwords and keys of the stack in docker-compose.yml, made by `./run stack init`. Keep this file to yourself, and
# keep it: the data in Docker's volumes opens with these only. Ports can be set here too, e.g. KIBANA_PORT=5602.
"""


def init(path: Path) -> list[str]:
    """Write what is missing with mode 600 and return, line by line, what was done; what is there stays as it is."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return _complete(path)
    except OSError as error:
        raise EnvFileError(f"{path} cannot be written ({error.strerror}); is the folder yours?") from error
    with os.fdopen(handle, "w") as file:
        file.write(_HEAD + "".join(_line(name) for name in VARIABLES))
    return [f"wrote {path} (mode 600) with new values for {', '.join(VARIABLES)}"]


def _complete(path: Path) -> list[str]:
    known = read(path)
    missing = [name for name in VARIABLES if not known.get(name)]
    done = [f"{path} is there already; none of its values was changed"]
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            path.chmod(0o600)
            done.append(f"its mode was {mode:03o}, so that others could read it; it is 600 now")
        if missing:
            text = path.read_text()
            with path.open("a") as file:
                file.write(("" if text.endswith("\n") or not text else "\n") + "".join(_line(name) for name in missing))
            done.append(f"added what it did not have: {', '.join(missing)}")
    except OSError as error:
        raise EnvFileError(f"{path} cannot be changed ({error.strerror}); is it yours?") from error
    return done


def _line(name: str) -> str:
    make, meaning = VARIABLES[name]
    return f"# {meaning}\n{name}={make()}\n"


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
