"""The command line: help with examples, exit statuses, one JSON object, mendable errors."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.main import get_command
from typer.testing import CliRunner, Result

from planner.library import SHIPPED
from planner.runtime import choose, cuda_usable
from schemas.asyncapi import document
from schemas.system import load_spec
from streams.cli import Commands, app
from streams.commands.lazy import LazyGroup
from streams.commands.options import (
    acting_bundles,
    bundle_roots,
    errors,
    home_bundles,
    plant_options,
)

RUNNER = CliRunner()


def run(*arguments: str) -> Result:
    return RUNNER.invoke(app, list(arguments))


def lazy() -> LazyGroup:
    root = get_command(app)
    assert isinstance(root, LazyGroup)
    return root


def commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []

    def walk(command: object, path: tuple[str, ...]) -> None:
        inner = getattr(command, "commands", None)
        if inner is None:
            found.append(path)
            return
        for name, child in inner.items():
            walk(child, (*path, name))

    root = lazy()
    for name in root.list_commands(None):
        walk(root.resolve_command(None, [name])[1], (name,))
    return sorted(found)


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_command_has_help_with_an_example_and_speaks_json(path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert "Example: rehearse" in result.output
    assert "--json" in result.output


def test_the_commands_of_the_design_are_there() -> None:
    names = {" ".join(path) for path in commands()}
    wanted = {
        "demo",
        "run",
        "align",
        "worker",
        "sink",
        "plant",
        "backtest",
        "record",
        "import",
        "replay",
        "explain",
        "hold",
        "resume",
        "rearm",
        "broker start",
        "broker stop",
        "broker status",
        "topics create",
        "topics check",
        "topics describe",
        "doctor",
        "bundle list",
        "bundle show",
        "bundle verify",
        "bundle promote",
        "bundle rollback",
        "bundle add",
        "bundle alias",
        "bundle history",
        "bundle diff",
        "bench align",
        "bench plan",
        "bench gate",
        "bench replay",
    }
    assert wanted <= names


@pytest.mark.parametrize("name", sorted(Commands.table))
def test_the_list_of_commands_says_what_each_says_itself(name: str) -> None:
    root = lazy()
    listed, loaded = root.get_command(None, name), root.load(name)
    assert listed.help == loaded.help.splitlines()[0]
    assert (listed.name, listed.rich_help_panel) == (loaded.name, loaded.rich_help_panel)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_also_in_a_background_job(
    tmp_path: Path, number: signal.Signals
) -> None:
    waits = tmp_path / "waits"  # for whoever writes the other end
    os.mkfifo(waits)
    words = [sys.executable, "-m", "streams.cli", "topics", "create", "nav2d"]
    words += ["--bootstrap-servers", "127.0.0.1:9", "-X", f"@{waits}"]
    # As a shell does that starts it with `&`.
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *words]
    with subprocess.Popen(ignoring, stderr=subprocess.PIPE, text=True) as child, waits.open("w"):
        child.send_signal(number)
        assert child.wait(60) == 130
        assert child.stderr is not None
        assert "Traceback" not in child.stderr.read()


def test_a_slip_of_the_pen_is_told_from_all_commands() -> None:
    assert "'align'" in run("aling").output
    assert "'train'" in run("trian").output, "which an entry point offers"


STUDY = {"torch", "plotly", "polars", "aiohttp", "psutil"}  # of no use to most parts of the loop
QUIET = {*STUDY, "rich"}  # who prints nothing needs no library for it


@pytest.mark.parametrize(
    ("modules", "without"),
    [
        ("streams.cli", {*STUDY, "rich", "sqlalchemy", "numpy", "pydantic", "confluent_kafka"}),
        ("streams.commands.operate", {*STUDY, "sqlalchemy"}),
        ("streams.commands.bundles", {*STUDY, "sqlalchemy", "onnxruntime"}),
        ("streams.commands.processes, streams.align_kafka", {*QUIET, "sqlalchemy", "onnxruntime"}),
        ("streams.commands.processes, streams.worker", {*QUIET, "sqlalchemy"} - {"aiohttp"}),
        (
            "streams.commands.processes, streams.perceive_worker",
            {*QUIET, "sqlalchemy"} - {"aiohttp"},
        ),
        ("streams.commands.processes, streams.sink", {*QUIET, "onnxruntime"}),
        ("streams.commands.processes, streams.plant", {*QUIET, "sqlalchemy", "onnxruntime"}),
    ],
)
def test_no_process_loads_what_others_need(modules: str, without: set[str]) -> None:
    command = [sys.executable, "-c", f"import sys, {modules}; print(*sys.modules)"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert without.isdisjoint(loaded)


@pytest.mark.parametrize(
    ("module", "wanted"),
    [
        ("align_kafka", {"numpy.ma"}),
        ("worker", {"numpy.ma"}),
        ("plant", {"numpy.ma"}),
        ("monitor", {"numpy.ma", "pyarrow.compute"}),
        ("sink", {"numpy.ma", "pyarrow.compute"}),
    ],
)
def test_the_first_message_waits_for_no_import(module: str, wanted: set[str]) -> None:
    command = [sys.executable, "-c", f"import sys, streams.{module}; print(*sys.modules)"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert wanted <= set(loaded)


def test_a_spec_that_is_not_there_is_status_2_with_the_remedy(tmp_path: Path) -> None:
    result = run("backtest", str(tmp_path / "no.yaml"))
    assert result.exit_code == 2
    assert "give a YAML file, or one of the shipped systems" in result.output.replace("\n", " ")


def test_topics_are_described_as_yaml_or_json_of_all_systems_or_one() -> None:
    assert yaml.safe_load(run("topics", "describe").stdout) == document()
    described = run("topics", "describe", "nav2d", "--json").stdout
    assert json.loads(described) == document(load_spec("nav2d"))


def test_a_backtest_prints_one_json_object() -> None:
    result = run(
        "backtest", "autoscale", "--policy", "fallback", "--ticks", "5", "--services", "2", "--json"
    )
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["ticks"] == 5
    assert content["decisions"] == 10
    assert content["score"]["cost"] > 0


def test_a_wrong_plant_option_is_told() -> None:
    result = run("backtest", "nav2d", "--policy", "fallback", "--ticks", "1", "-o", "robbots=3")
    assert result.exit_code == 2
    assert "robbots" in result.output


def test_a_full_disk_is_told_with_what_helps(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), errors(), Path("/dev/full").open("w", buffering=1) as full:
        full.write("more\n")
    assert "the disk is full: free some" in capsys.readouterr().err.replace("\n", " ")


def test_a_bundle_that_was_named_has_to_be_whole(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--bundle .*none: 0 bundles fit"):
        acting_bundles([str(tmp_path / "none")])
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"--bundle .*manifest\.json"):
        acting_bundles([str(tmp_path)])


@pytest.mark.parametrize("option", ["robots=many", "robots=2.5", "arena=nan", "robots="])
def test_a_plant_option_of_another_kind_is_told(option: str) -> None:
    words = ("--policy", "fallback", "--ticks", "1", "-o", option)
    result = run("backtest", "nav2d", *words)
    assert result.exit_code == 2
    assert f"option {option.partition('=')[0]}: a" in result.output
    assert "number is needed" in result.output.replace("\n", " ")


@pytest.mark.parametrize("words", [("--ticks", "0"), ("--ticks", "-1"), ("--seed", "-1")])
def test_counts_below_the_least_are_refused(words: tuple[str, str]) -> None:
    assert run("backtest", "nav2d", "--policy", "fallback", *words).exit_code == 2


def test_a_bundle_that_is_not_there_is_status_1_for_verify() -> None:
    result = run("bundle", "verify", "no-such-bundle", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["usable"] is False


def test_plant_options_become_numbers() -> None:
    assert plant_options(["a=3", "b=0.5", "c=30 s", "d=x=y"]) == {
        "a": 3,
        "b": 0.5,
        "c": "30 s",
        "d": "x=y",
    }


def test_what_lies_in_the_home_folder_does_not_act_unreleased(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REHEARSE_HOME", str(tmp_path))
    home_bundles().mkdir()
    assert acting_bundles(None) == [SHIPPED]
    assert acting_bundles([str(tmp_path)]) == [tmp_path]
    assert bundle_roots() == [SHIPPED, home_bundles()], "a released one is found there"


@pytest.mark.parametrize("word", [("--lockstep",), ("-o", "robots=3")])
def test_what_is_for_the_simulator_needs_the_simulator(word: tuple[str, ...]) -> None:
    result = run("run", "nav2d", *word)
    assert result.exit_code == 2
    assert "add --plant" in result.output


def test_aligners_that_cannot_share_are_refused_before_a_broker_is_asked() -> None:
    result = run("run", "nav2d", "--aligners", "2", "--bootstrap-servers", "127.0.0.1:9")
    assert result.exit_code == 2
    assert "`cohorts: 1`, which 2 aligners cannot share" in result.output


@pytest.mark.parametrize("command", ["run", "worker"])
def test_a_worker_is_a_shadow_or_a_twin(command: str) -> None:
    result = run(command, "nav2d", "--shadow", "--twin", "--bootstrap-servers", "127.0.0.1:9")
    assert result.exit_code == 2
    assert "choose one of them" in result.output


def test_a_bench_on_a_device_that_is_not_there_runs_on_the_cpu(
    caplog: pytest.LogCaptureFixture,
) -> None:
    if cuda_usable():
        pytest.skip("there is a CUDA device here")
    choose.cache_clear()
    result = run("bench", "plan", "--device", "cuda", "--repeat", "1", "--json")
    assert "no usable CUDA device here" in caplog.messages[0]
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["device"] == "cpu"


@pytest.mark.parametrize(
    "words",
    [
        ("decide", "--workers", "3"),
        ("decide", "--decisions", "0"),
        ("decide", "--repeat", "0"),
        ("latency", "--runs", "0"),
        ("latency", "--seconds", "0"),
        ("machine", "--seconds", "0"),
        ("perceive", "--messages", "0"),
        ("failover", "--repeat", "0"),
    ],
)
def test_a_bench_of_nothing_is_refused_before_a_broker_is_asked(words: tuple[str, ...]) -> None:
    result = run("bench", *words)
    assert result.exit_code == 2
    assert words[1] in result.output
