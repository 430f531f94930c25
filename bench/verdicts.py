"""Verdicts of ``explain`` against the truth of simulated stores: two confusion matrices.

    python bench/verdicts.py [--only TEXT] [--series N] [--every N] [--explain]

The services of ``tests/traces`` come first: each of their rows at each value, the truth being the same service with its
cause undone. Then the simulator: each scenario of ``tests/simulator/scenarios.py`` runs, is written into a store in
memory, and is explained from there.
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

from bulkscope_studio.analysis.explain.findings import TITLES  # noqa: E402
from bulkscope_studio.services.explanations import bulk_explanation  # noqa: E402
from bulkscope_studio.storage.store import Store  # noqa: E402
from tests.simulator.ledger import Ledger, complaints, ledger  # noqa: E402
from tests.simulator.records import write  # noqa: E402
from tests.simulator.scenarios import Scenario, scenarios  # noqa: E402
from tests.simulator.truth import SURELY, SURELY_NOT, right  # noqa: E402
from tests.traces.asking import explained  # noqa: E402
from tests.traces.rows import ROWS, named  # noqa: E402
from tests.traces.service import work  # noqa: E402

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said of one scenario, and what is true of it; ``seconds`` is what saying it took."""

    scenario: Scenario
    said: str
    seconds: float
    truth: Ledger
    verdicts: frozenset[str]
    whole: dict[str, object] | None

    @property
    def right(self) -> bool:
        return self.said in self.verdicts

    @property
    def true(self) -> str:
        """The verdict that it deserves; of several what was said."""
        return self.said if self.right else min(self.verdicts)


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
    said = UNKNOWN if found is None else found["verdict"]["code"]
    return Answer(scenario, said, seconds, truth, right(scenario, run), found)


def traces() -> list[tuple[str, str, str]]:
    """Return for each value of each row its name, the verdict that it deserves and the one that was said.

    Where undoing the cause saves too little, anything but its verdict is right: what it says then counts as true.
    """
    found = []
    for row in ROWS:
        for value in row.values:
            done = work(row.make(value))
            saved, said = row.saved(done), explained(done)["verdict"]["code"]
            same = said in {row.verdict} | row.stays
            between = SURELY_NOT < saved < SURELY
            long = row.verdict == "one_long_job"  # of one that is nearly all of the makespan its place saves little
            true = said if same == (saved >= SURELY) or between or long else row.verdict if saved >= SURELY else "other"
            found.append((f"{named(row)} at {value:g}", true, said))
    return found


def matrix(answers: Iterable[tuple[str, str]]) -> str:
    """Return truth against what was said, ``(truth, said)``, as a list of what is counted: most cells are empty."""
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for true, said in answers:
        counted[true][said] += 1
    lines = ["| truth | right | else said |", "|---|---:|---|"]
    for true in [*TITLES, *sorted(set(counted) - set(TITLES))]:
        row = counted[true]
        total = sum(row.values())
        if total:
            rest = ", ".join(f"`{said}` {count}" for said, count in row.most_common() if said != true)
            lines.append(f"| `{true}` | {row[true]} of {total}, {row[true] / total:.1%} | {rest} |")
    return "\n".join(lines)


def _cost(truth: Ledger) -> str:
    """Return what the mechanisms cost where most workers were busy, and how the number of busy workers varied."""
    parts = [f"{name} {share:.0%}" for name, share in truth.cost.items() if share >= 0.01]
    return f"{', '.join(parts) or 'none'}; {truth.busy_low:.1f} to {truth.busy_high:.1f} busy"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="only scenarios whose name contains this")
    parser.add_argument("--series", type=int, default=0, help="which draw of lengths, noise, failures and losses")
    parser.add_argument("--every", type=int, default=1, help="only every n-th scenario of the simulator")
    parser.add_argument("--explain", action="store_true", help="print the whole answer of each wrong one, as JSON")
    arguments = parser.parse_args()
    chosen = [s for s in scenarios(arguments.series) if arguments.only is None or arguments.only in s.name]
    chosen = chosen[:: max(1, arguments.every)]
    if arguments.only is None:
        of_traces = traces()
        print(f"Services of tests/traces\n\n{matrix((true, said) for _, true, said in of_traces)}\n")
        hits = sum(true == said for _, true, said in of_traces)
        print(f"{hits} of {len(of_traces)} right ({hits / len(of_traces):.1%}).")
        for name, true, said in of_traces:
            if true != said:
                print(f"Wrong: {name}: {said} instead of {true}")
        print("\nSystems of tests/simulator\n")
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
    print(matrix((answer.true, answer.said) for answer in answers))
    hits = sum(answer.right for answer in answers)
    borders = [answer for answer in answers if answer.scenario.border]
    at_border = sum(answer.right for answer in borders)
    part = hits / len(answers)
    print(f"\n{hits} of {len(answers)} right ({part:.1%}); at a verdict's border {at_border} of {len(borders)}.")
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
        print(f"| {name} | `{answer.true}` | `{answer.said}` | {told.parameters} | {_cost(answer.truth)} |")
        if arguments.explain:
            print(json.dumps(answer.whole, indent=1))
    return int(any(answer.scenario.verdict == "data_unfit" for answer in wrong))


if __name__ == "__main__":
    sys.exit(main())
