"""What needs the API server is collected where ``python tests/engines/build.py apiserver`` has built it."""

from __future__ import annotations

from tests.engines.binaries import cache

collect_ignore = [] if (cache() / "bin" / "kube-apiserver").exists() else ["test_apiserver.py"]
