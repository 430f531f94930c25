"""What Python runs first in a container that has this folder on PYTHONPATH: Bulkscope, without a change to its image.

Beside this folder lies ``packages``: ``any`` for every CPython, ``otel`` with OpenTelemetry alone, and compiled parts
in a folder by the name of the interpreter's extensions (``cpython-312-x86_64-linux-gnu``). They go to the end of the
path, so that what the service has of its own is what it gets. Where the two do not fit together the service runs as if
nothing was here, and says why in one line. Any Python 3 can read this file; the packages want 3.11.
"""

import importlib.machinery
import importlib.util
import os
import sys

HOOK = os.path.dirname(os.path.abspath(__file__))
PACKAGES = os.path.join(os.path.dirname(HOOK), "packages")
API = "opentelemetry-api"


def _say(words):
    sys.stderr.write("bulkscope: not instrumented: %s\n" % words)  # noqa: UP031 (any Python 3)


def _normal(name):
    return name.replace("_", "-").replace(".", "-").lower()


def _service_hook():
    """Run the service's own sitecustomize, which this one has hidden."""
    rest = [path for path in sys.path if os.path.abspath(path) != HOOK]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def _brought():
    """Return the names of the packages that lie here."""
    listed = os.listdir(os.path.join(PACKAGES, "any")) + os.listdir(os.path.join(PACKAGES, "otel"))
    return {_normal(name.partition("-")[0]) for name in listed if name.endswith(".dist-info")}


def _found(names):
    """Return by name the distribution of each that this interpreter would import, and whether it is the service's."""
    from importlib.metadata import distributions

    found = {}
    for name in names:
        one = next(iter(distributions(name=name)), None)
        if one is not None:
            found[name] = one, not str(one.locate_file("")).startswith(PACKAGES)
    return found


def _conflicts(names):
    """Return what of the packages that come together here does not go together, as lines."""
    found = _found(names)
    if not any(own for _, own in found.values()):
        return []  # nothing of it is the service's: it was locked together
    from packaging.requirements import Requirement

    lines = []
    for name, (one, own) in sorted(found.items()):
        for line in one.requires or []:
            wanted = Requirement(line)
            other = found.get(_normal(wanted.name))
            if other is None or (wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})):
                continue
            if (own or other[1]) and not wanted.specifier.contains(other[0].version, prereleases=True):
                lines.append(
                    "%s %s%s needs %s%s, and there is %s%s"  # noqa: UP031
                    % (
                        name,
                        one.version,
                        " of this service" if own else "",
                        wanted.name,
                        wanted.specifier,
                        other[0].version,
                        " of this service" if other[1] else "",
                    )
                )
    return lines


def _put_on_path():
    """Put the packages behind the service's own; return why they may not stay there, or None."""
    names = _brought()
    compiled = os.path.join(PACKAGES, importlib.machinery.EXTENSION_SUFFIXES[0].strip(".").partition(".")[0])
    otel = os.path.join(PACKAGES, "otel")
    sys.path.extend(path for path in (compiled, os.path.join(PACKAGES, "any"), otel) if os.path.isdir(path))
    lines = _conflicts(names)
    # A library of the service has brought OpenTelemetry's API and nothing else of it: an older one may be replaced,
    # since what it promised stays within its major version. Anything more (an SDK, instrumentations) may not.
    if lines and {name for name, (_, own) in _found(names).items() if own and name.startswith("opentelemetry")} == {
        API
    }:
        sys.path.remove(otel)
        sys.path.insert(0, otel)
        if _older_api(otel):
            lines = _conflicts(names)
    return "; ".join(lines) or None


def _older_api(otel):
    """Tell whether the service's API is older than ours and of the same major version."""
    from importlib.metadata import distributions

    from packaging.version import Version

    ours, theirs = None, None
    for one in distributions(name=API):
        if str(one.locate_file("")).startswith(otel):
            ours = ours or Version(one.version)
        else:
            theirs = theirs or Version(one.version)
    return ours is not None and theirs is not None and theirs.major == ours.major and theirs <= ours


def _start():
    if sys.version_info < (3, 11) or sys.implementation.name != "cpython":
        _say("this is {} {}.{}, and CPython 3.11 is the least".format(sys.implementation.name, *sys.version_info[:2]))
        return
    # Off the path meanwhile: a process that set-up starts must not set up.
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in before.split(os.pathsep) if path != HOOK)
    try:
        paths, problem = list(sys.path), "the packages cannot be read"
        try:
            problem = _put_on_path()
        finally:
            if problem is not None:
                sys.path[:] = paths
        if problem is not None:
            _say(problem + "; install bulkscope in the service's image instead, where pip finds versions that fit")
            return
        # Ours alone are here: gRPC and OpenTelemetry's own exporters are not among the packages.
        for signal in ("TRACES", "METRICS", "LOGS"):
            os.environ.setdefault("OTEL_" + signal + "_EXPORTER", "bulkscope")
        import runpy

        hook = importlib.util.find_spec("bulkscope").submodule_search_locations[0]
        runpy.run_path(os.path.join(hook, "_hook", "sitecustomize.py"))
    finally:
        os.environ["PYTHONPATH"] = before


try:
    _service_hook()
finally:
    try:
        _start()
    except Exception as error:
        _say(f"{type(error).__name__}: {error}")
