"""The stack's passwords and keys: a file for each in a folder that this user alone can enter, made once.

Compose mounts each file into the containers that need it (``secrets`` in docker-compose.yml).
"""

from __future__ import annotations

import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from stack import wholefile

# By the name that each had as a variable of .env, and has with _FILE behind it for `bulkscope`: what it is.
MEANINGS: Mapping[str, str] = {
    "ELASTIC_PASSWORD": "of the user 'elastic', with which people log in to Kibana",
    "KIBANA_SYSTEM_PASSWORD": "with which Kibana talks to Elasticsearch",
    "KIBANA_SECURITY_KEY": "encrypts Kibana's sessions",
    "KIBANA_SAVED_OBJECTS_KEY": "encrypts what Kibana saves: without it, that cannot be read again",
    "KIBANA_REPORTING_KEY": "encrypts Kibana's reports",
}

# Everybody may read a file, who can enter the folder: a container gets the file alone, mounted with owner and mode as
# they are here, and reads it as a user of its own (1000, 10001).
OPEN = 0o444


class PasswordError(Exception):
    """A file cannot be read or written; the message says what to do."""


def file(folder: Path, name: str) -> Path:
    """Return where a secret is kept."""
    return folder / name.lower()


def read(folder: Path, name: str) -> str:
    """Return a secret, without line ends at its end; empty where there is none."""
    try:
        return file(folder, name).read_text().rstrip("\r\n")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise PasswordError(f"{file(folder, name)} cannot be read ({error}); is it a text file of yours?") from error


def init(folder: Path, given: Mapping[str, str]) -> list[str]:
    """Write the secrets that are missing and return, line by line, what was done; one that is there stays as it is.

    ``given`` are values to take instead of new ones: those that an older .env holds.
    """
    for name in MEANINGS:
        there = read(folder, name)
        if there and given.get(name) and there != given[name]:
            raise PasswordError(
                f"{name} stands in .env and, with another value, in {file(folder, name)}: remove the one with which "
                "Elasticsearch was not first started"
            )
    missing = [name for name in MEANINGS if not read(folder, name)]
    done = []
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        mode = stat.S_IMODE(folder.stat().st_mode)
        if mode & 0o077:
            folder.chmod(0o700)
            done.append(f"the mode of {folder} was {mode:03o}, so that others could enter it; it is 700 now")
        for name in MEANINGS.keys() - missing:
            if not file(folder, name).stat().st_mode & 0o004:
                file(folder, name).chmod(OPEN)
                done.append(f"opened {file(folder, name)} to the containers (mode 444)")
        for name in missing:
            # 128 bits as 32 characters that mean nothing to a shell, to YAML or to curl; Kibana's encryption keys must
            # have 32 at least.
            wholefile.write(file(folder, name), given.get(name) or secrets.token_hex(16), OPEN)
    except OSError as error:
        raise PasswordError(f"{folder} cannot be written ({error.strerror}); is it yours?") from error
    made = [name for name in missing if not given.get(name)]
    moved = [name for name in missing if given.get(name)]
    if made:
        done.append(f"wrote new values into {folder} (mode 700): {', '.join(name.lower() for name in made)}")
    if moved:
        done.append(f"moved from .env into {folder} (mode 700), as they were: {', '.join(moved)}")
    return done
