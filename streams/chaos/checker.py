"""The checker: what must hold after any run, told from its topics and files alone."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from streams.chaos.check_actions import check_applied, check_envelope, gaps_ms
from streams.chaos.check_inputs import check_frames, check_inputs
from streams.chaos.check_logged import Replay, check_beliefs, check_rows, check_trajectories
from streams.chaos.check_shed import check_shed
from streams.chaos.facts import Findings, Violation, facts_of
from streams.chaos.log import Log

INVARIANTS: Final[dict[str, str]] = {
    "input": "a reading is in a frame, or a dead letter, or counted as late, or told as shed",
    "shed": "what is told as shed is records that are there, under the wall clock alone",
    "frames": "a cohort has a frame at every tick",
    "once": "an entity applies one action a tick",
    "first": "what is applied is the first action of its id",
    "order": "an entity answers ticks in order",
    "stale": "nothing is applied after valid_until",
    "envelope": "an action is in range, and within its rate of the value applied",
    "trajectory": "a frame has a trajectory, and an action is what it says",
    "stored": "a row of a trajectory is in Parquet exactly once",
    "counted": "one row of an applied action counts, and no other",
    "belief": "a belief is that of an undisturbed replay of the same frames",
    "recovery": "after the last fault, every process is there, and the last frame is decided",
}
"""Name → what must hold. `recovery` is found by whoever runs the loop, all others here."""


@dataclass(frozen=True)
class Verdict:
    """Violations by invariant, examples of each, and what was seen beside."""

    counts: dict[str, int]
    examples: tuple[Violation, ...]
    gaps_ms: dict[str, int]
    figures: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)  # of dead letters

    @property
    def violations(self) -> int:
        """How many in all."""
        return sum(self.counts.values())

    @property
    def outcome(self) -> str:
        """`violated`, `held`, or `idle`: nothing was applied, so that it shows next to nothing."""
        if self.violations:
            return "violated"
        return "held" if self.figures.get("applied") else "idle"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "violations": self.violations,
            "by_invariant": dict(sorted(self.counts.items())),
            "examples": [list(example) for example in self.examples],
            "longest_gap_ms": max(self.gaps_ms.values(), default=0),
            "gaps_ms": self.gaps_ms,
            **self.figures,
            "reasons": self.reasons,
        }


def check(log: Log, replay: Replay, findings: Findings | None = None) -> Verdict:
    """Holds a log to every invariant; `replay` says what beliefs an undisturbed run has."""
    facts, findings = facts_of(log), findings or Findings()
    figures = {
        **check_shed(facts, findings),  # first: what does not hold there excuses nothing
        **check_inputs(facts, findings),
        **check_frames(facts, findings),
        **check_applied(facts, findings),
        **check_envelope(facts, findings),
        **check_trajectories(facts, findings),
        **check_rows(facts, findings),
        **check_beliefs(facts, findings, replay),
        "dead_letters": len(facts.shed_letters) + sum(map(len, facts.letters.values())),
    }
    letters = [letter for found in facts.letters.values() for letter in found] + facts.shed_letters
    reasons = dict(sorted(Counter(letter.reason for letter in letters).items()))
    return Verdict(dict(findings.counts), tuple(findings.told), gaps_ms(facts), figures, reasons)
