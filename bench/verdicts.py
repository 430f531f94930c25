"""Verdicts of ``explain`` against the truth of simulated stores: the confusion matrix.

    python bench/verdicts.py [--only TEXT] [--series N] [--explain]

Each scenario of ``tests/simulator/scenarios.py`` runs, is written into a store in memory, and is explained from there.
Another series than 0 holds what no threshold was chosen with; its scenarios that by chance are not what they claim
are left out. The exit code is 1 when data that is unfit got another verdict: a confident answer from such data is
worse than none.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bulkscope_studio.services.explanations import bulk_explanation  # noqa: E402
from bulkscope_studio.storage.store import Store  # noqa: E402
from tests.simulator.ledger import VERDICTS, Ledger, complaints, ledger  # noqa: E402
from tests.simulator.records import write  # noqa: E402
from tests.simulator.scenarios import Scenario, scenarios  # noqa: E402

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said of one scenario, and what is true of it; ``seconds`` is what saying it took."""

    scenario: Scenario
    said: str
    seconds: float
    truth: Ledger
    whole: dict[str, object] | None

    @property
    def right(self) -> bool:
        return self.said == self.scenario.verdict


def ask(scenario: Scenario) -> Answer:
    """Simulate a scenario, store it and have its bulk explained."""
    run = scenario.run()
    store = Store(Path(":memory:"))
    try:
        truth = ledger(run, scenario.bulk, write(run, store), scenario.among)
        began = time.perf_counter()
        found = bulk_explanation(store, scenario.bulk, now_ns=scenario.now_ns(run))
        seconds = time.perf_counter() - began
    finally:
        store.close()
    return Answer(scenario, UNKNOWN if found is None else found["verdict"]["code"], seconds, truth, found)


def matrix(answers: Iterable[Answer]) -> str:
    """Return truth against what was said as a markdown table."""
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for answer in answers:
        counted[answer.scenario.verdict][answer.said] += 1
    strange = sorted({said for row in counted.values() for said in row} - set(VERDICTS))
    columns = [*VERDICTS, *strange]
    lines = [
        "| truth \\ said | " + " | ".join(f"`{name}`" for name in columns) + " | right |",
        "|---|" + "---:|" * (len(columns) + 1),
    ]
    for truth in VERDICTS:
        row = counted[truth]
        total = sum(row.values())
        if total:
            cells = " | ".join(str(row[name]) if row[name] else "" for name in columns)
            lines.append(f"| `{truth}` | {cells} | {row[truth]} of {total}, {row[truth] / total:.1%} |")
    return "\n".join(lines)


def _cost(truth: Ledger) -> str:
    """Return what the mechanisms cost where most workers were busy, and how the number of busy workers varied."""
    parts = [f"{name} {share:.0%}" for name, share in truth.cost.items() if share >= 0.01]
    return f"{', '.join(parts) or 'none'}; {truth.busy_low:.1f} to {truth.busy_high:.1f} busy"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="only scenarios whose name contains this")
    parser.add_argument("--series", type=int, default=0, help="which draw of lengths, noise, failures and losses")
    parser.add_argument("--explain", action="store_true", help="print the whole answer of each wrong one, as JSON")
    arguments = parser.parse_args()
    chosen = [s for s in scenarios(arguments.series) if arguments.only is None or arguments.only in s.name]
    if not chosen:
        print(f"no scenario's name contains {arguments.only!r}", file=sys.stderr)
        return 2
    answers = []
    for number, scenario in enumerate(chosen):
        if number % 50 == 0:
            print(f"{number} of {len(chosen)} scenarios", file=sys.stderr)
        answer = ask(scenario)
        if not complaints(answer.truth, scenario.verdict):
            answers.append(answer)
    if not answers:
        print("none of the chosen scenarios is what it claims in this series", file=sys.stderr)
        return 2
    print(matrix(answers))
    right = sum(answer.right for answer in answers)
    borders = [answer for answer in answers if answer.scenario.border]
    at_border = sum(answer.right for answer in borders)
    part = right / len(answers)
    print(f"\n{right} of {len(answers)} right ({part:.1%}); at a verdict's border {at_border} of {len(borders)}.")
    if len(answers) < len(chosen):
        print(f"Left out, for they are not what they claim: {len(chosen) - len(answers)}.")
    times = sorted(answer.seconds for answer in answers)
    print(f"An answer takes {times[len(times) // 2] * 1e3:.0f} ms (median; longest {times[-1] * 1e3:.0f} ms).")
    wrong = [answer for answer in answers if not answer.right]
    if wrong:
        print("\n| wrong | truth | said | what it is | true cost |\n|---|---|---|---|---|")
    for answer in wrong:
        told = answer.scenario
        name = f"{told.name}, border" if told.border else told.name
        print(f"| {name} | `{told.verdict}` | `{answer.said}` | {told.parameters} | {_cost(answer.truth)} |")
        if arguments.explain:
            print(json.dumps(answer.whole, indent=1))
    return int(any(answer.scenario.verdict == "data_unfit" for answer in wrong))


if __name__ == "__main__":
    sys.exit(main())
