"""Build ``prometheus/rules/numbers.yml`` from ``prometheus/source/numbers.yaml``: ``python -m prometheus.build``.

With ``--check`` it only compares. The source says what is counted, by which labels, and which quantiles are wanted; how
a rate is made of series that come and go stands here once. A rule of the source is one of:

- ``record`` and ``expr``: as in Prometheus, but that ``{rate: SERIES, by: LABELS}`` on a line of its own stands for the
  rate of a counter
- ``rate``: a counter, recorded as ``record`` by the labels ``by``
- ``histogram``: its buckets' rates, recorded at the ``level`` by the labels of it and ``by``, and from these the
  ``quantiles``; ``sum: true`` records the rate of its sum, ``mean: true`` the mean; ``name`` where it is recorded under
  another one

``levels`` gives labels names; ``about`` is the comment before a rule, ``heading`` that before several.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stack import generated
from stack.generated import BadSource

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "source" / "numbers.yaml"
BUILT = HERE / "rules" / "numbers.yml"
NOTE = "# Made by prometheus/build.py of prometheus/source/numbers.yaml; change that.\n#\n"
WIDTH = 120
INDENT = " " * 10  # of an expression that takes several lines
SHARED = frozenset({"about", "heading"})
KINDS = {
    "rate": frozenset({"rate", "record", "by"}),
    "histogram": frozenset({"histogram", "level", "by", "name", "quantiles", "sum", "mean"}),
    "expr": frozenset({"expr", "record"}),
}


class Levels:
    """The labels that are summed by: names of levels stand for several."""

    def __init__(self, levels: Mapping[str, list[str]]) -> None:
        self._levels = levels

    def labels(self, by: str) -> list[str]:
        """Return the labels of ``service, http_route``, where ``service`` is a level and ``http_route`` a label."""
        return [label for name in by.split(", ") for label in self._levels.get(name, [name])]

    def rate(self, series: str, by: str) -> list[str]:
        """Return the lines of a counter's rate: what ``about`` of the source explains."""
        new = f"({series} unless {series} offset 5m) / 300"
        lines = [f"    {new}"]
        if len(INDENT) + len(lines[0]) > WIDTH:
            lines = ["    (", f"      {series}", "      unless", f"      {series} offset 5m", "    ) / 300"]
        head = [f"sum by ({', '.join(self.labels(by))}) ("]
        if len(INDENT) + len(head[0]) > WIDTH:
            head = ["sum by (", f"  {', '.join(self.labels(by))}", ") ("]
        return [
            *head, "  (", *lines, "    or", f"    rate({series}[5m])", "  )",
            "  unless on (job, instance) job_instance:telemetry:resumed", ")",
        ]  # fmt: skip

    def filled(self, expr: str) -> list[str]:
        """Return the lines of an expression with its rates put in."""
        lines: list[str] = []
        for line in expr.strip().splitlines():
            if found := re.fullmatch(r"( *)\{rate: (.+), by: (.+)\}(.*)", line):
                indent, series, by, after = found.groups()
                lines += [indent + inner for inner in self.rate(series, by)]
                lines[-1] += after
            else:
                lines.append(line)
        return lines


def expanded(rule: Mapping[str, Any], levels: Levels) -> Iterator[tuple[str, list[str]]]:
    """Yield what a rule of the source records, each with the lines of its expression. Raises ``BadSource``."""
    kind = next((kind for kind in KINDS if kind in rule), None)
    if kind is None:
        raise BadSource(f"a rule has one of {', '.join(KINDS)}")
    if unknown := sorted(map(str, rule.keys() - KINDS[kind] - SHARED)):
        raise BadSource(f"{', '.join(unknown)} is not known; there are {', '.join(sorted(KINDS[kind] | SHARED))}")
    if kind == "expr":
        yield rule["record"], levels.filled(rule["expr"])
    elif kind == "rate":
        yield rule["record"], levels.rate(rule["rate"], rule["by"])
    else:
        series, level = rule["histogram"], rule["level"]
        name = rule.get("name", series)
        by = rule.get("by", level)
        buckets = f"{level}_le:{name}_bucket:rate5m"
        yield buckets, levels.rate(f"{series}_bucket", f"{by}, le")
        total = [f"{level}:{name}_sum:rate5m"]
        if rule.get("sum"):
            yield total[0], levels.rate(f"{series}_sum", by)
        for q in rule["quantiles"]:
            yield f"{level}:{name}:p{q * 100:g}_5m", [f"histogram_quantile({q:g}, {buckets}) >= 0"]
        if rule.get("mean"):
            count = f'(sum without (le) ({buckets}{{le="+Inf"}}) > 0)'
            yield (
                f"{level}:{name}:mean5m",
                [*(total if rule.get("sum") else levels.rate(f"{series}_sum", by)), "/", count],
            )


def commented(text: str, indent: str) -> str:
    return "".join(f"{indent}# {line}".rstrip() + "\n" for line in text.rstrip("\n").splitlines())


def built(path: Path = SOURCE) -> str:
    """Return the rules' text; raises ``BadSource``."""
    try:
        source = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BadSource(f"{path.name} cannot be read as YAML: {error}") from error
    levels = Levels(source["levels"])
    text = [NOTE, commented(source["about"], ""), f"groups:\n  - name: {source['group']}\n    rules:\n"]
    for rule in source["rules"]:
        if "heading" in rule:
            text.append(f"\n      # --- {rule['heading']} ---\n")
        text.append(commented(rule.get("about", ""), " " * 6))
        try:
            for record, lines in expanded(rule, levels):
                inline = f"        expr: {lines[0]}\n"
                text.append(f"      - record: {record}\n")
                if len(lines) == 1 and len(inline) <= WIDTH + 1:
                    text.append(inline)
                else:
                    text.append("        expr: |\n" + "".join(f"{INDENT}{line}\n" for line in lines))
        except (BadSource, KeyError) as error:
            lacks = "lacks " if isinstance(error, KeyError) else ""
            raise BadSource(
                f"{path.name}: {rule.get('record') or rule.get('histogram') or rule}: {lacks}{error}"
            ) from error
    return "".join(text)


def main(arguments: list[str] | None = None) -> int:
    """Write the rules, or with ``--check`` compare them; ``deploy/kubernetes/generate.py`` takes them over."""
    about = __doc__.partition("\n")[0]
    return generated.main(arguments, "prometheus.build", about, BUILT.parent, BUILT.name, lambda: {BUILT.name: built()})


if __name__ == "__main__":
    sys.exit(main())
