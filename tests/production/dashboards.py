"""The built dashboards, and the fields that their queries name."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILT = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "kibana" / "dashboards").glob("*.json"))}


def fields(query: str) -> set[str]:
    """Return the attributes and metrics that a query names, with their prefix."""
    bare = re.sub(r"//[^\n]*|\"[^\"]*\"", "", query).replace("`", "")
    return set(re.findall(r"\b(?:resource\.attributes|attributes|metrics)(?:\.\w+)+", bare))
