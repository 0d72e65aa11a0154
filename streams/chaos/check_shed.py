"""What was passed over: ranges of records, each told by a letter, that can be what it says."""

from schemas.messages import DeadLetter
from schemas.topics import topics_of
from streams.chaos.facts import Facts, Findings


def check_shed(facts: Facts, findings: Findings) -> dict[str, int]:
    """Takes up the ranges that hold, into `facts.shed`; one that does not excuses nothing.

    Records of a range may have been read all the same, after a restart before it.
    """
    ends = _ends(facts)
    for letter in facts.shed_letters:
        if why := _wrong(facts, letter, ends):
            findings.add("shed", f"{letter.topic}, partition {letter.partition}: {why}")
        elif letter.end is not None:
            place = letter.topic, letter.partition
            facts.shed.setdefault(place, []).append(range(letter.offset, letter.end))
    return {"ranges_shed": sum(map(len, facts.shed.values()))}


def _ends(facts: Facts) -> dict[tuple[str, int], int]:
    """Topic and partition → the offset after its last record, of the topics that are read."""
    ends: dict[tuple[str, int], int] = {}
    for found in topics_of(facts.log.spec):
        if found.kind in ("sensors", "applied", "outcomes", "control", "frames"):
            for entry in facts.log.topics.get(found.name, []):
                place = entry.topic, entry.partition
                ends[place] = max(ends.get(place, 0), entry.offset + 1)
    return ends


def _wrong(facts: Facts, letter: DeadLetter, ends: dict[tuple[str, int], int]) -> str:
    """Why a range cannot have been passed over."""
    told = f"offsets {letter.offset} to {letter.end} are said to be passed over"
    if facts.log.clock != "wall":
        return f"{told} under the {facts.log.clock} clock"
    if letter.end is None or not 0 <= letter.offset < letter.end:
        return f"{told}: no range"
    if (end := ends.get((letter.topic, letter.partition), 0)) < letter.end:
        return f"{told}, and its records end at {end}"
    return ""


__all__ = ["check_shed"]
