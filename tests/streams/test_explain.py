"""One decision looked into: equal to what was logged, told whole, and what else there was."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from planner.budget import FreeBudget
from planner.cem import Cem, Icem
from planner.mppi import Mppi
from planner.plan import plan, plan_ahead
from planner.planners import PLANNERS
from planner.session import Bundle
from schemas.catalog import Catalog
from schemas.catalog_tables import Recording as RecordingRow
from schemas.codes import Flag, Mode, Reason, Status
from schemas.frames import Frame
from schemas.messages import action_id
from schemas.trajectories import Decisions
from streams.belief import Row
from streams.cli import app
from streams.decide import prepare, respond, step
from streams.explain import explain
from streams.explain_find import tick_asked
from streams.explain_words import MODES, REASONS, STATUS, gate_words
from streams.recording import Recording
from streams.replay_deck import Deck, ReplayError
from tests.planner.worlds import double_integrator, make_bundle
from tests.streams.runs import RUN_SPEC, decide_all, run_bundle, run_frames, write_recording

TICKS = range(100)
Logged = list[tuple[Frame, Decisions, Row]]


def us(tick: int) -> str:
    return str(RUN_SPEC.epoch_us + tick * RUN_SPEC.period_us)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return run_bundle(tmp_path_factory.mktemp("bundles") / "b")


@pytest.fixture(scope="module")
def logged(bundle: Bundle) -> Logged:
    return [item for cohort in (0, 1) for item in decide_all(bundle, run_frames(cohort, TICKS))]


@pytest.fixture(scope="module")
def recording(logged: Logged, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cohorts, 100 ticks, planned with what a busy machine had time for."""
    return write_recording(tmp_path_factory.mktemp("recording"), logged)


@pytest.fixture(scope="module")
def ahead(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cohort, planned ahead alone: at each tick it follows what was made at the one before."""
    found: Logged = []
    row: Row | None = None
    for frame in run_frames(0, range(12)):
        row, decisions = step(RUN_SPEC, bundle, row, frame, FreeBudget(0), FreeBudget())
        found.append((frame, decisions, row))
    return write_recording(tmp_path_factory.mktemp("ahead"), found)


def modes_of(logged: Logged, entity: str, mode: Mode) -> list[int]:
    """The ticks at which `mode` decided for `entity`."""
    return [
        frame.tick
        for frame, decisions, _ in logged
        if entity in frame.entities and decisions.mode[frame.entities.index(entity)] == mode
    ]


def asked(recording: Path, bundle: Bundle, entity: str, tick: int, **more: Any) -> dict[str, Any]:
    return explain([recording], entity=entity, at=us(tick), bundles=[bundle.path], **more)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["explain", *arguments])


def test_every_decision_comes_out_as_it_was_logged(
    recording: Path, logged: Logged, bundle: Bundle
) -> None:
    for tick in (0, 1, 37, 63, 64, 65, 90):
        for entity in ("r00", "r12"):
            found = asked(recording, bundle, entity, tick)
            assert (found["equal"], found["differences"]) == (True, 0)
            decided = next(d for f, d, _ in logged if f.tick == tick and entity in f.entities)
            row = int(entity[2])
            made = found["decision"]
            assert list(made["action"].values()) == decided.action[row].tolist()
            assert list(made["proposal"].values()) == decided.proposal[row].tolist()
            assert made["mode"] == Mode(int(decided.mode[row])).name.lower()
            assert found["belief"]["digest"] == decided.spent["belief"]
            half = np.array(found["belief"]["hidden"], np.float16)
            assert half.tolist() == decided.hidden[row].astype(np.float16).tolist()


def test_a_plan_of_this_tick_is_told_with_its_searches(
    recording: Path, logged: Logged, bundle: Bundle
) -> None:
    tick = next(t for t in modes_of(logged, "r01", Mode.PLAN) if t % 4 == 3 and t > 64)
    found = asked(recording, bundle, "r01", tick)
    decided = next(d for f, d, _ in logged if f.tick == tick and "r01" in f.entities)
    plan_ = found["plan"]
    assert (plan_["made_at"], plan_["ticks_ago"]) == (tick, 0)
    last = plan_["searches"][-1]
    chosen = next(one for one in last["finalists"] if one["chosen"])
    assert np.float32(chosen["returned"]) == decided.returned[1, 0]
    assert chosen["sequence"][0] == decided.proposal[1].tolist()
    assert len(last["iterations"]) == decided.iterations[1]
    names = [one["name"] for one in found["futures"]]
    assert names[:3] == ["decided", "hold", "fallback"]
    for one in found["futures"]:
        assert np.shape(one["channels"]["position[0]"]) == (4, 3)
        assert np.shape(list(one["actions"].values())) == (2, 4)
    second = next(one for one in found["futures"] if one["name"] == "second best")
    worse = max(f["score"] for f in last["finalists"] if f["sequence"] != chosen["sequence"])
    named = next(f["name"] for f in last["finalists"] if f["score"] == worse)
    assert named in second["words"]


def test_a_followed_plan_is_told_from_the_tick_that_made_it(
    recording: Path, logged: Logged, bundle: Bundle
) -> None:
    tick = modes_of(logged, "r02", Mode.FOLLOW)[-3]
    found = asked(recording, bundle, "r02", tick)
    made_at = found["plan"]["made_at"]
    assert made_at == max(t for t in modes_of(logged, "r02", Mode.PLAN) if t < tick)
    assert found["equal"]
    last = found["plan"]["searches"][-1]
    chosen = next(one for one in last["finalists"] if one["chosen"])
    now = chosen["sequence"][tick - made_at]
    assert now == list(found["decision"]["proposal"].values())
    assert last["step"] == tick - made_at
    assert not last["ahead"]
    second = next(one for one in found["futures"] if one["name"] == "second best")
    named = next(f for f in last["finalists"] if second["words"].endswith(f["name"]))
    then = [values[0] for values in second["actions"].values()]
    assert then == named["sequence"][tick - made_at] != named["sequence"][0]
    since = found["plan"]["since"]
    assert set(since) == set(RUN_SPEC.observed_columns)
    frame = next(f for f, _, _ in logged if f.tick == tick and "r02" in f.entities)
    seen = frame.values[2, 0]
    assert since["position[0]"]["seen"] == (None if np.isnan(seen) else seen)
    low, middle, high = since["position[0]"]["expected"]
    assert low < middle < high


def test_a_plan_made_ahead_is_told_from_the_tick_before(ahead: Path, bundle: Bundle) -> None:
    found = asked(ahead, bundle, "r00", 7)
    assert (found["decision"]["mode"], found["equal"]) == ("follow", True)
    assert (found["plan"]["made_at"], found["plan"]["words"]) == (
        6,
        "made ahead, when the actions of its tick were out",
    )
    assert [one["ahead"] for one in found["plan"]["searches"]] == [True, True]
    chosen = next(one for one in found["plan"]["searches"][-1]["finalists"] if one["chosen"])
    assert chosen["sequence"][1] == list(found["decision"]["proposal"].values())
    assert chosen["sequence"][0] == list(
        asked(ahead, bundle, "r00", 6)["decision"]["action"].values()
    )


def test_what_if_beyond_range_passes_the_gate(recording: Path, bundle: Bundle) -> None:
    wanted = [{"acceleration[0]": 5.0}, {"acceleration[0]": 0.5, "acceleration[1]": -0.5}]
    found = asked(recording, bundle, "r00", 37, what_if=wanted)
    decided, given, fine = found["futures"][0], found["futures"][-2], found["futures"][-1]
    assert given["name"] == "acceleration[0]=5"
    assert "outside [low, high]" in given["words"]
    assert "held" in given["words"]
    assert given["actions"]["acceleration[0]"] == [1.0] * 4
    assert given["actions"]["acceleration[1]"] == [decided["actions"]["acceleration[1]"][0]] * 4
    assert "let out as it is" in fine["words"]
    assert fine["actions"]["acceleration[1]"] == [-0.5] * 4
    for one in (given, fine):
        assert one["difference"] == pytest.approx(one["mean"] - decided["mean"])
        assert 0.0 <= one["better"] <= 1.0
    for wrong, said in (({"thrust": 1.0}, "acceleration"), ({"acceleration[0]": np.nan}, "finite")):
        with pytest.raises(ReplayError, match=said):
            asked(recording, bundle, "r00", 37, what_if=[wrong])


def test_what_happened_is_what_the_log_says(
    recording: Path, logged: Logged, bundle: Bundle
) -> None:
    found = asked(recording, bundle, "r11", 50)
    real = found["happened"]
    later = [f for f, _, _ in logged if "r11" in f.entities and 50 < f.tick <= 54]
    assert real["ticks"] == [51, 52, 53, 54]
    values = [[None if np.isnan(x) else x for x in f.values[1, :6].tolist()] for f in later]
    assert list(map(list, zip(*real["observed"].values(), strict=True))) == values
    applied = [f.applied[1].tolist() for f in later]
    assert list(map(list, zip(*real["applied"].values(), strict=True))) == applied
    # The actions in these frames are drawn at random: never those that were decided.
    assert (real["as_decided_for"], real["other_actions_from"]) == (0, 50)
    assert asked(recording, bundle, "r11", 97)["happened"]["ended"] == "the recording ends here"


def test_actions_that_stayed_as_planned_and_an_episode_that_ended(
    bundle: Bundle, tmp_path: Path
) -> None:
    first = decide_all(bundle, run_frames(0, range(12)), budget=lambda tick: FreeBudget())
    sequence = first[5][2].memory["sequence"][0]  # r00's plan of tick 5
    frames = []
    for frame in run_frames(0, range(12)):
        applied, flags = frame.applied.copy(), frame.flags.copy()
        if frame.tick in (6, 7):
            applied[0] = sequence[frame.tick - 6]
        flags[0] |= Flag.RESET if frame.tick == 9 else 0
        frames.append(replace(frame, applied=applied, flags=flags))
    logged = decide_all(bundle, frames, budget=lambda tick: FreeBudget())
    found = asked(write_recording(tmp_path, logged), bundle, "r00", 5)
    real = found["happened"]
    assert (real["ticks"], real["ended"]) == ([6, 7, 8], "the episode ended here")
    assert (real["as_decided_for"], real["other_actions_from"]) == (2, 7)
    seen = np.array([frames[t].values[0, :6] for t in (6, 7)])
    assert real["seen"] == int(np.isfinite(seen).sum())
    assert len(real["expected"]) == 3


def test_an_operators_hold_and_override_and_a_refusal(bundle: Bundle, tmp_path: Path) -> None:
    frames = []
    for frame in run_frames(0, range(10)):
        control = replace(
            frame.header.control,
            holds=("r00", "r02") if frame.tick == 6 else (),
            overrides={"r01": {"acceleration[0]": 9.0}} if frame.tick == 6 else {},
        )
        applied = frame.applied.copy()
        applied[2] = np.nan if frame.tick == 6 else applied[2]  # a hold of nobody knows what
        header = replace(frame.header, control=control)
        frames.append(replace(frame, header=header, applied=applied))
    logged = decide_all(bundle, frames, budget=lambda tick: FreeBudget())
    folder = write_recording(tmp_path, logged)
    held, over, refused = (
        asked(folder, bundle, name, 6, what_if=[{"acceleration[1]": 0.5}])
        for name in ("r00", "r01", "r02")
    )
    assert [one["decision"]["mode"] for one in (held, over, refused)] == [
        "hold",
        "override",
        "refused",
    ]
    assert all(one["equal"] for one in (held, over, refused))
    assert held["decision"]["action"] == held["decision"]["in_force"]
    assert "operator" in held["decision"]["words"]
    assert [w["reason"] for w in over["decision"]["gate"]] == ["range", "override"]
    assert over["decision"]["override"] == {"acceleration[0]": 9.0}
    assert over["decision"]["action"]["acceleration[0]"] == 1.0
    assert refused["decision"]["action"] is None
    assert any(words.startswith("hold") for words in refused["left_out"])
    assert any("refused" in words for words in refused["left_out"]), "a what-if is held as well"
    assert "nothing was published" in refused["futures"][0]["words"]
    text = run("--recording", str(folder), "--entity", "r02", "--at", us(6), "--bundles",
               str(bundle.path)).stdout  # fmt: skip
    assert "refused: nothing" in text
    assert "an operator holds this entity" in text


def test_a_plan_that_the_gate_replaced_is_told_beside_the_fallback(tmp_path: Path) -> None:
    world = double_integrator(noise=0.05, gains=(0.5, 0.7, 1.0, 1.3, 1.5))
    calibration = {
        "innovation_band": 1e6,
        "channel_scale": [1.0] * len(RUN_SPEC.columns),
        "max_uncertainty": 1e-6,
    }
    unsure = make_bundle(tmp_path / "b", RUN_SPEC, world, calibration=calibration)
    logged = decide_all(unsure, run_frames(0, range(8)), budget=lambda tick: FreeBudget())
    folder = write_recording(tmp_path / "r", logged)
    found = asked(folder, unsure, "r01", 5)
    made = found["decision"]
    assert (made["mode"], made["proposed_by"], found["equal"]) == ("fallback", "plan", True)
    assert [item["reason"] for item in made["gate"]][-1] == "uncertain"
    decided, proposal = found["futures"][:2]
    assert proposal["name"] == "proposal"
    assert [v[0] for v in proposal["actions"].values()] == list(made["proposal"].values())
    assert [v[0] for v in decided["actions"].values()] == list(made["fallback"].values())
    assert found["plan"]["searches"]
    text = run("--recording", str(folder), "--entity", "r01", "--at", us(5), "--bundles",
               str(unsure.path)).stdout  # fmt: skip
    assert "limit 1e-06" in text
    assert "proposed: plan" in text


def test_a_simulated_run_with_the_shipped_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plans ahead, an actor that is rolled on, and actions that were applied as decided."""
    monkeypatch.setenv("REHEARSE_HOME", str(tmp_path / "home"))
    folder, page = tmp_path / "run", tmp_path / "why.html"
    words = ["backtest", "nav2d", "--ticks", "14", "--unhurried", "-o", "robots=3"]
    made = CliRunner().invoke(app, [*words, "--record", str(folder), "--json"])
    assert made.exit_code == 0, made.output
    result = run("--recording", str(folder), "--entity", "robot-01", "--at", "0.6 s", "--json",
                 "--report", str(page), "--what-if", "acceleration[0]=-1")  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["equal"], found["system"]) == (True, "nav2d")
    assert found["horizon"] == 20
    names = [one["name"] for one in found["futures"]]
    assert names[0] == "decided"
    assert names[-2:] == ["actor", "acceleration[0]=-1"]
    actor = found["futures"][-2]
    assert "now and after" in actor["words"]
    assert len(set(actor["actions"]["acceleration[0]"])) > 5, "it answers to what it imagines"
    real = found["happened"]
    assert real["status"][0] == "applied"
    assert real["as_decided_for"] >= 1
    first = [column[0] for column in real["applied"].values()]
    assert first == list(found["decision"]["action"].values())
    low, _, high = real["expected"]
    assert low - 1.0 < real["earned"] < high + 1.0, "the shipped model knows this simulator"
    assert "second best" in page.read_text()


def test_without_a_folder_the_catalog_is_looked_into(
    recording: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    monkeypatch.setenv("REHEARSE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REHEARSE_CATALOG", url)
    identity = action_id("nav2d", "r10", 71)
    words = (identity, "--bundles", str(bundle.path))
    nothing = run(*words)
    assert nothing.exit_code == 2
    assert "rehearse record" in nothing.stderr
    other = write_recording(tmp_path / "other", decide_all(None, run_frames(0, range(3))))
    catalog = Catalog(url)
    catalog.create()
    facts: dict[str, Any] = {"system": "nav2d", "from_us": 0, "to_us": 1, "frames": 1}
    facts |= {"spec": "", "spec_hash": "", "ranges": {}}
    for created, folder in enumerate((recording, tmp_path / "gone", other)):
        catalog.put(RecordingRow(path=str(folder), created_us=created, **facts))
    catalog.close()
    assert run(*words).stdout.startswith("r10 at")
    unknown = run("0123456789abcdef")
    assert "none of the 3 recordings" in unknown.stderr


def test_a_fallback_without_a_model_has_no_futures(tmp_path: Path) -> None:
    folder = write_recording(tmp_path, decide_all(None, run_frames(0, range(5))))
    found = explain([folder], entity="r00", at="0.3 s")
    assert (found["tick"], found["equal"], found["futures"]) == (3, True, [])
    assert [w["reason"] for w in found["decision"]["gate"]] == ["no_model"]
    assert "no bundle" in found["plan"]["words"]
    assert found["happened"]["ticks"] == [4]
    page, text = tmp_path / "why.html", run(
        "--recording", str(folder), "--entity", "r00", "--at", "0.3 s",
        "--report", str(tmp_path / "why.html"),
    )  # fmt: skip
    assert text.exit_code == 0
    assert "nothing can be imagined without a model" in text.stdout
    assert "Nothing can be imagined" in page.read_text()


def test_what_differs_from_the_log_is_said_and_ends_with_1(bundle: Bundle, tmp_path: Path) -> None:
    logged = decide_all(bundle, run_frames(0, range(20)))
    frame, decisions, row = logged[10]
    action = decisions.action.copy()
    action[1, 0] = np.nextafter(action[1, 0], 9.0)  # the last bit
    spent = {**decisions.spent, "machine": "Plan9 vax"}
    logged[10] = (frame, replace(decisions, action=action, spent=spent), row)
    folder = write_recording(tmp_path, logged)
    words = ("--recording", str(folder), "--at", us(10), "--bundles", str(bundle.path))
    result = run(*words, "--entity", "r01")
    assert result.exit_code == 1
    assert "NOT the same: 1 values differ, the first action:acceleration[0]" in result.stdout
    assert "Plan9 vax" in result.stdout
    assert run(*words, "--entity", "r00").exit_code == 0


def test_a_recording_that_begins_late(bundle: Bundle, tmp_path: Path) -> None:
    logged = decide_all(bundle, run_frames(0, TICKS))
    cut = write_recording(tmp_path, [item for item in logged if item[0].tick >= 64])
    with pytest.raises(ReplayError, match=r"before the first key frame.*--from"):
        asked(cut, bundle, "r00", 64)
    # Plans of ticks 62 and 66 alone; the log begins with the row of tick 64.
    every = decide_all(
        bundle, run_frames(0, range(70)), budget=lambda t: FreeBudget(None if t % 4 == 2 else 0)
    )
    late = write_recording(tmp_path / "late", [item for item in every if item[0].tick >= 64])
    found = asked(late, bundle, "r00", 65)
    assert (found["decision"]["mode"], found["equal"]) == ("follow", True)
    assert (found["plan"]["made_at"], found["plan"]["searches"]) == (62, [])
    assert "does not reach back" in found["plan"]["words"]
    assert found["futures"][0]["name"] == "decided"
    undecided = write_recording(tmp_path / "u", logged[:10], frames=[f for f, _, _ in logged[:12]])
    with pytest.raises(ReplayError, match="no decision was logged"):
        asked(undecided, bundle, "r00", 11)


def test_ids_times_and_names_that_are_not_there(recording: Path, bundle: Bundle) -> None:
    def why(*more: str) -> str:
        result = run("--recording", str(recording), "--bundles", str(bundle.path), *more)
        assert result.exit_code == 2, result.output
        return result.stderr

    assert "16 hex digits" in why("nonsense")
    other = why(action_id("autoscale", "r00", 37))
    assert "of another system" in other
    assert "system nav2d" in other
    assert "tick 0" in other
    assert "tick 99" in other
    assert "not in" in why("--entity", "r00", "--at", us(400))
    assert "r00, r01" in why("--entity", "r99", "--at", us(40))
    assert "event time in us" in why("--entity", "r00", "--at", "noon")
    for half in (["--entity", "r00"], ["--at", "3 s"], []):
        assert "--entity and --at" in why(*half)
    assert "NAME=NUMBER" in why("--entity", "r00", "--at", us(4), "--what-if", "fast")
    missing = run("--recording", str(recording), "--bundles", str(recording), "--entity", "r00",
                  "--at", us(40))  # fmt: skip
    assert missing.exit_code == 2
    assert "--bundles" in missing.stderr


def test_the_command_tells_it_as_text_json_and_page(
    recording: Path, bundle: Bundle, tmp_path: Path
) -> None:
    identity = action_id("nav2d", "r10", 71)
    page = tmp_path / "why.html"
    words = (identity, "--recording", str(recording), "--bundles", str(bundle.path))
    result = run(*words, "--what-if", "acceleration[0]=7", "--report", str(page))
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert text.splitlines()[0].startswith("r10 at 1970-01-01 00:00:07.100 (tick 71, nav2d)")
    for said in ("the same, bit for bit", "what if", "fallback", "acceleration[0]=7", "happened"):
        assert said in text
    spoken = run(*words, "--json")
    found = json.loads(spoken.stdout)
    assert (found["action_id"], found["entity"], found["tick"]) == (identity, "r10", 71)
    assert found == explain([recording], identity, bundles=[bundle.path])
    html = page.read_text()
    for said in ("The fan of futures", "bit for bit", "outside [low, high]", "position[0], m"):
        assert said in html


def test_the_same_explanation_comes_out_twice(recording: Path, bundle: Bundle) -> None:
    first, second = (asked(recording, bundle, "r00", 71) for _ in range(2))
    assert json.dumps(first) == json.dumps(second)


def test_one_cohort_alone_is_decided(recording: Path, bundle: Bundle) -> None:
    source = Recording.open(recording)
    deck = Deck(source, "pinned", source.spec, 1)
    deck.load([bundle.path], None, "auto")
    assert deck.cohorts == [1]
    assert [item.frame.entities[0] for _ in range(3) for item in deck.play()] == ["r10"] * 3
    assert deck.logged(5, 0) is None
    assert deck.logged(5, 1) is not None
    assert [frame.cohort for frame in deck.frames(5)] == [1]
    assert deck.frames(500) == []
    deck.close()


def test_a_model_that_gives_no_numbers_is_told_all_the_same(tmp_path: Path) -> None:
    calibration = {"innovation_band": 1e6, "channel_scale": [1.0] * len(RUN_SPEC.columns)}
    world = double_integrator(noise=0.05, value=np.nan)
    broken = make_bundle(tmp_path / "b", RUN_SPEC, world, calibration=calibration)
    logged = decide_all(broken, run_frames(0, range(8)), budget=lambda tick: FreeBudget())
    folder, page = write_recording(tmp_path / "r", logged), tmp_path / "why.html"
    result = run("--recording", str(folder), "--entity", "r01", "--at", us(5), "--bundles",
                 str(broken.path), "--report", str(page))  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "20 with no number" in result.stdout
    assert "its return is not a number" in page.read_text()


def test_a_time_between_two_ticks_is_of_the_one_before(recording: Path, bundle: Bundle) -> None:
    late = str(int(us(40)) + RUN_SPEC.period_us - 1)
    assert explain([recording], entity="r00", at=late, bundles=[bundle.path])["tick"] == 40
    again = explain([recording], entity="r00", at="1970-01-01T00:00:04", bundles=[bundle.path])
    assert again["tick"] == 40


def test_every_code_has_words() -> None:
    assert set(MODES) == set(Mode)
    assert set(REASONS) == set(Reason)
    assert set(STATUS) == {status.name.lower() for status in Status}
    said = gate_words(Reason.RATE | Reason.ROUNDED)
    assert [item["reason"] for item in said] == ["rate", "rounded"]


@pytest.mark.parametrize("function", [plan, plan_ahead, respond, prepare])
def test_nothing_watches_unless_it_is_asked_to(function: Callable[..., Any]) -> None:
    """The loop calls these without `planners`: the searches are the planners themselves."""
    assert inspect.signature(function).parameters["planners"].default is PLANNERS
    assert set(PLANNERS.values()) == {Icem, Cem, Mppi}


@pytest.mark.parametrize("at", ["20 s", "1970-01-01T00:00:20", "20000000"])
def test_between_two_ticks_it_is_the_decision_that_was_in_force(at: str) -> None:
    spec = RUN_SPEC.model_copy(update={"period_us": 15_000_000, "epoch_us": 0})
    assert tick_asked(at, 0, spec) == 1
