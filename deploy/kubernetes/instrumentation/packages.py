"""Makes the folder that a pod's init container copies: ``python packages.py FOLDER WHEEL``, with uv on the path.

WHEEL is Bulkscope's own. What it needs comes from uv.lock, hashes checked: OpenTelemetry's API, SDK and
instrumentation, and wrapt. That is all that a process imports which sends with Bulkscope's exporters; neither gRPC nor
protobuf, which services of machine learning pin to versions of their own. One folder serves CPython 3.11 and later,
glibc and musl, amd64 and arm64; where no compiled part of wrapt fits, its Python does the same, slower.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
# By folder in `packages`.
GROUPS = {
    "otel": (
        "opentelemetry-api",
        "opentelemetry-sdk",
        "opentelemetry-semantic-conventions",
        "opentelemetry-instrumentation",
        "opentelemetry-util-http",
    ),
    "any": ("wrapt", "packaging", "typing-extensions"),
}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# uv's name of the platform, and how CPython ends the names of its extensions there.
PLATFORMS = {
    "x86_64-manylinux_2_28": "x86_64-linux-gnu",
    "aarch64-manylinux_2_28": "aarch64-linux-gnu",
    "x86_64-unknown-linux-musl": "x86_64-linux-musl",
    "aarch64-unknown-linux-musl": "aarch64-linux-musl",
}
OURS = ("bulkscope", "bulkscope_instrumentation")


def _uv(*words: str | Path) -> str:
    command = ["uv", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def _locked(names: tuple[str, ...]) -> str:
    """Return the lines of uv.lock for these packages, as a file of requirements with hashes."""
    exported = _uv("export", "--quiet", "--frozen", "--no-default-groups", "--no-emit-project", "--no-annotate")
    found, wanted = [], False
    for line in exported.splitlines():
        if not line.startswith((" ", "#")):
            wanted = line.partition("==")[0].strip() in names
        if wanted:
            found.append(line)
    missing = set(names) - {line.partition("==")[0] for line in found if not line.startswith(" ")}
    if missing:
        raise SystemExit(f"packages: not in uv.lock: {', '.join(sorted(missing))}")
    return "\n".join(found) + "\n"


def _install(requirements: Path, target: Path, python: str, platform: str) -> None:
    _uv(
        "pip", "install", "--quiet", "--no-config", "--no-deps", "--require-hashes", "--only-binary", ":all:",
        "--link-mode", "copy", "--python-version", python, "--python-platform", platform,
        "--target", target, "-r", requirements,
    )  # fmt: skip
    shutil.rmtree(target / "bin", ignore_errors=True)
    (target / ".lock").unlink(missing_ok=True)


def make(folder: Path, wheel: Path) -> None:
    """Fill the new ``folder`` with ``hook`` and ``packages``."""
    packages = folder / "packages"
    shutil.copytree(HERE / "hook", folder / "hook", ignore=shutil.ignore_patterns("__pycache__"))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        first = next(iter(PLATFORMS))
        for group, names in GROUPS.items():
            (work / group).write_text(_locked(names))
            _install(work / group, packages / group, PYTHONS[0], first)
        for extension in packages.rglob("*.so"):
            extension.unlink()  # of one Python; the Python code beside it does without
        (work / "wrapt").write_text(_locked(("wrapt",)))
        for platform, suffix in PLATFORMS.items():
            for python in PYTHONS:
                target = packages / f"cpython-{python.replace('.', '')}-{suffix}"
                _install(work / "wrapt", target, python, platform)
                if not list(target.glob(f"wrapt/*.{target.name}.so")):
                    raise SystemExit(f"packages: the wheel of wrapt for {target.name} has no compiled part")
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            top = member.partition("/")[0]
            if top in OURS or top.endswith(".dist-info"):
                archive.extract(member, packages / "any")
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # read by whichever user the service runs as


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: packages.py FOLDER WHEEL")
    make(Path(sys.argv[1]), Path(sys.argv[2]))
