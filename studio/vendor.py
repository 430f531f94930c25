"""Fetch the libraries of the pages from npm into ``static/lib/``, as its ``VENDORED.json`` lists them.

``python studio/vendor.py`` writes what the list names; with ``--to NAME=VERSION`` it takes another
version first. Needs ``npm``. A browser knows no bare names: an import of ``preact`` becomes one of ``./preact.js``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

LIB = Path(__file__).parent / "bulkscope_studio" / "static" / "lib"
LIST = LIB / "VENDORED.json"
_MAP = re.compile(rb"\n?(?://# sourceMappingURL=\S+|/\*# sourceMappingURL=\S+ \*/)\s*$")
_BARE = re.compile(rb"""from\s*["'](preact)["']""")


def fetched(package: dict[str, Any]) -> dict[str, bytes]:
    """Return the content of each of a package's files, by the name that it has in ``lib/``."""
    with tempfile.TemporaryDirectory() as folder:
        asked = ["npm", "pack", "--silent", f"{package['name']}@{package['version']}"]
        subprocess.run(asked, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as files:
            found = {}
            for name, path in package["files"].items():
                member = files.extractfile(f"package/{path}")
                assert member is not None, f"{path} is not in {archive.name}"
                text = _BARE.sub(rb'from"./\1.js"', _MAP.sub(b"", member.read()))
                found[name] = text.rstrip() + b"\n"
    return found


def sha256(content: bytes) -> str:
    """Return the hash that the list has of a file."""
    return hashlib.sha256(content).hexdigest()


def main() -> None:
    """Write the files and their hashes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", action="append", default=[], metavar="NAME=VERSION", help="take this version")
    wanted = dict(each.split("=", 1) for each in parser.parse_args().to)
    packages = json.loads(LIST.read_text())
    for package in packages:
        package["version"] = wanted.get(package["name"], package["version"])
        contents = fetched(package)
        for name, content in contents.items():
            (LIB / name).write_bytes(content)
        package["sha256"] = {name: sha256(content) for name, content in contents.items()}
    LIST.write_text(json.dumps(packages, indent=2) + "\n")


if __name__ == "__main__":
    main()
