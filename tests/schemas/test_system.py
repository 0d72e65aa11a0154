"""Specs: what the shipped ones say, what each mistake is told, and which hash moves with what."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from schemas.system import SHIPPED, SpecError, load_spec, parse_spec, shipped_systems

AUTOSCALE = (SHIPPED / "autoscale.yaml").read_text()


def edited(old: str, new: str) -> str:
    assert old in AUTOSCALE
    return AUTOSCALE.replace(old, new)


def test_the_shipped_specs_load() -> None:
    assert shipped_systems() == ["autoscale", "nav2d"]
    for name in shipped_systems():
        assert load_spec(name).system == name


def test_vectors_become_flat_columns() -> None:
    spec = load_spec("nav2d")
    assert spec.columns[:2] == ("position[0]", "position[1]")
    assert spec.action_columns == ("acceleration[0]", "acceleration[1]")
    assert spec.action_low.tolist() == [-1.0, -1.0]
    assert np.isinf(spec.rate_up).all()
    assert spec.channel_of_column.tolist() == [0, 0, 1, 1, 2, 2]


def test_names_fields_and_topics_are_filled() -> None:
    spec = load_spec("autoscale")
    assert spec.sensors["load"].topic == "autoscale.sensors.load"
    assert [(c.name, c.field) for c in spec.channels][:2] == [("requests", "rps"), ("ready",) * 2]
    assert spec.columns[-4:] == (
        "time_of_day[0]",
        "time_of_day[1]",
        "day_of_week[0]",
        "day_of_week[1]",
    )
    assert spec.period_us == 15_000_000
    assert spec.deadline_us == 17_000


@pytest.mark.parametrize(
    ("old", "new", "where", "words"),
    [
        ("every: 5 s", "every: 5", "every: 5", "load.every: write a duration with its unit"),
        ("cohorts: 1", "cohort: 1", "cohort:", "cohort: there is no such field"),
        ("cohorts: 1", "cohorts: 0", "cohorts:", "Input should be greater than or equal to 1"),
        ("align: mean}\n  pods", "align: meen}\n  pods", "requests:", "requests.align"),
        ("2 * late_share", "2 * late_shar", "reward:", "did you mean 'late_share'"),
        ("range: [0, 1.0e+6]", "range: [1, 1]", "requests:", "is empty"),
        ("low: 1, high: 200", "low: 1.5, high: 200", "replicas:", "needs whole numbers"),
        ("low: 1, high: 200", "low: 300, high: 200", "replicas:", "is not below"),
        ("unit: 1/s, ", "", "requests:", "unit: this field is required"),
        ("kind: hpa", "kind: hpaa", "fallback:", "fallback.kind"),
        ("starting: {unit", "requests: {unit", "system:", "name each channel and action"),
        ("entity: service", "entity: service\nentity: pod", "entity: pod", "stands twice"),
        ("entity: service", "entity: [service", "tick:", "not valid YAML"),
        ("<= 0.95 * 3", "<= __import__('os') * 3", "enough:", "constraints.enough.holds"),
    ],
)
def test_a_mistake_is_told_with_line_and_field(old: str, new: str, where: str, words: str) -> None:
    text = edited(old, new)
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "my.yaml")
    lines = [line.strip() for line in text.splitlines()]
    expected = next(i for i, line in enumerate(lines, 1) if line.startswith(where))
    assert words in str(caught.value)
    assert f"my.yaml:{expected}:" in str(caught.value)


def test_every_mistake_is_told_at_once() -> None:
    text = edited("every: 5 s", "every: 5").replace("cohorts: 1", "cohort: 1")
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    assert len(str(caught.value).splitlines()) == 2


def test_a_spec_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="autoscale, nav2d"):
        load_spec(tmp_path / "no.yaml")
    with pytest.raises(SpecError, match="a spec is a mapping"):
        parse_spec("- 1")


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"system: a\n# gr\xfcn\n", r":2: not a text in UTF-8"),
        (b"system: a\nentity: \x00\n", r":2: not valid YAML: the character #x0000"),
        (b"system: a\n\tentity: b\n", r":2:1: .* indent with blanks"),
        (b"[" * 3_000, "nested too deeply"),
        (b"&a {system: *a}\n", "within itself"),
        (b"a: b\n" * 300_000, "larger than"),
        (b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
            f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n".encode()
            for old, new in pairwise("abcdefgh")
        ), "more than 100000 fields"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_spec_is_told(tmp_path: Path, content: bytes, where: str) -> None:
    file = tmp_path / "my.yaml"
    file.write_bytes(content)
    with pytest.raises(SpecError, match=rf"my\.yaml.*{where}"):
        load_spec(file)


def test_an_endless_range_of_an_action_is_told() -> None:
    with pytest.raises(SpecError, match=r"actions\.replicas\.high: .* a finite number"):
        parse_spec(edited("high: 200", "high: .inf"))


def test_a_new_objective_leaves_the_interface_alone() -> None:
    old, new = load_spec("autoscale"), parse_spec(edited("2 * late_share", "20 * late_share"))
    assert new.interface_hash == old.interface_hash
    assert new.objective_hash != old.objective_hash
    assert new.spec_hash != old.spec_hash


def test_white_space_in_an_expression_is_not_a_new_objective() -> None:
    old, new = load_spec("autoscale"), parse_spec(edited("2 * late_share", "2*late_share"))
    assert new.objective_hash == old.objective_hash


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tick: 15 s", "tick: 10 s"),
        ("align: max", "align: mean"),
        ("high: 200", "high: 100"),
        ("context: [time_of_day, day_of_week]", "context: [time_of_day]"),
        ("starting: {unit: replicas, range", "starting: {unit: pods, range"),
    ],
)
def test_what_a_model_sees_or_does_moves_the_interface(old: str, new: str) -> None:
    assert parse_spec(edited(old, new)).interface_hash != load_spec("autoscale").interface_hash


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("up: 10", "up: 20"),
        ("down: 3}", "down: 3}, accel: {up: 2, down: 1}"),
        ("deadline: 17 ms", "deadline: 5 ms"),
        ("target: 0.7", "target: 0.5"),
    ],
)
def test_what_a_model_does_not_see_leaves_the_interface_alone(old: str, new: str) -> None:
    spec = parse_spec(edited(old, new))
    assert spec.interface_hash == load_spec("autoscale").interface_hash
    assert spec.spec_hash != load_spec("autoscale").spec_hash


def test_how_a_tier_is_searched_is_part_of_the_spec_where_it_is_not_as_usual() -> None:
    tier = "deep: {candidates: 255"
    usual = load_spec("nav2d")
    text = (SHIPPED / "nav2d.yaml").read_text()
    said = parse_spec(text.replace(tier, "deep: {planner: icem, colour: 2.0, candidates: 255"))
    other = parse_spec(text.replace(tier, "deep: {planner: mppi, candidates: 255"))
    feared = parse_spec(text.replace("budget:\n", "budget:\n  risk: {tail: 0.2}\n"))
    assert said.spec_hash == usual.spec_hash
    assert len({usual.spec_hash, other.spec_hash, feared.spec_hash}) == 3
    assert other.budget.tiers["deep"].planner == "mppi"
    with pytest.raises(SpecError, match=r"tiers\.deep\.planner: .*'icem', 'cem' or 'mppi'"):
        parse_spec(text.replace(tier, "deep: {planner: mpi, candidates: 255"))
    with pytest.raises(SpecError, match=r"risk\.tail: .*greater than 0"):
        parse_spec(text.replace("budget:\n", "budget:\n  risk: {tail: 0}\n"))


def test_acceleration_has_no_limit_where_none_is_given() -> None:
    spec = load_spec("autoscale")
    assert not spec.limits_acceleration
    assert (spec.accel_up.tolist(), spec.accel_down.tolist()) == ([np.inf], [np.inf])
    assert "accel" not in spec.model_dump()["actions"]["replicas"]  # its hash stays what it was
    limited = parse_spec(edited("down: 3}", "down: 3}, accel: {up: 2, down: 1}"))
    assert limited.limits_acceleration
    assert (limited.accel_up.tolist(), limited.accel_down.tolist()) == ([2.0], [1.0])
    with pytest.raises(SpecError, match=r"accel\.up: Input should be greater than 0"):
        parse_spec(edited("down: 3}", "down: 3}, accel: {up: 0, down: 1}"))
    with pytest.raises(SpecError, match=r"whole numbers can never change by 0\.5"):
        parse_spec(edited("down: 3}", "down: 3}, accel: {up: 2, down: 0.5}"))


def test_a_copy_with_another_field_derives_everything_anew() -> None:
    spec = load_spec("autoscale")
    assert spec.reward is not None
    before = spec.spec_hash
    other = spec.model_copy(update={"reward_text": "-ready", "period_us": 1})
    assert other.spec_hash != before
    assert str(other.reward and other.reward.source) == "-ready"
    assert other.interface_hash != spec.interface_hash
    assert spec.spec_hash == before


def test_the_reward_of_the_shipped_spec() -> None:
    reward = load_spec("autoscale").reward
    assert reward is not None
    names = ("requests", "ready", "starting", "late_share")
    enough, short = (60.0, 26.0, 0.0, 0.01), (60.0, 20.0, 4.0, 0.0)
    columns = dict(zip(names, np.array([enough, short]).T, strict=True))
    missing = 22.0 + 0.7 * np.sqrt(20.0) - 20.0
    expected = [-0.0025 * 26.0 - 0.02, -0.0025 * 24.0 - 0.02 * missing]
    assert reward.numpy(columns).tolist() == pytest.approx(expected)
