"""Two real processes on gloo learn what one does from the same batches, and end together."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from models.data import load_dataset
from models.share import ALONE, Share, ShareError
from models.train import TrainConfig, Trainer
from schemas.system import parse_spec
from tests.models.conftest import TINY, Trained
from tests.models.synthetic import SPEC

COSTLY = f'{SPEC}constraints: {{near: {{holds: "abs(place) < 1", kind: soft}}}}\n'
# Uneven parts on purpose: 25 windows, 11 starts of each member.
SHORT = replace(
    TINY,
    steps=16,
    actor_steps=8,
    batch=25,
    starts=55,
    model=replace(TINY.model, cost=True),
    actor=replace(TINY.actor, starts=55, imitation=0.5),
)
EACH = """
import sys
from pathlib import Path
import torch
from models.share import joined
from tests.models.test_share import *
torch.set_num_threads(1)
with joined("cpu") as share:
    trainer = shared(Path(sys.argv[1]), share)
    trainer.run()
    torch.save(trainer.state(), Path(sys.argv[2]) / f"{share.rank}.pt")
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def shared(folder: Path, share: Share = ALONE, config: TrainConfig = SHORT) -> Trainer:
    """Learns from `folder`, as much of it as is this process's."""
    spec = parse_spec(COSTLY)
    dataset = load_dataset(spec, [folder])
    reached = dataset.train.reward * 3  # for the imitation
    dataset = replace(dataset, train=replace(dataset.train, reached=reached))
    return Trainer(spec, dataset, config, share=share)


def test_both_have_the_same_weights_and_those_of_one_process(
    trained: Trained, tmp_path: Path
) -> None:
    script = tmp_path / "each.py"
    script.write_text(EACH)
    command = [*TORCHRUN, str(script), str(trained.folder), str(tmp_path)]
    subprocess.run(command, check=True, timeout=200, env=os.environ | {"PYTHONPATH": os.curdir})
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    alone = shared(trained.folder)
    start = {k: v.clone() for k, v in alone.model.state_dict().items()}
    alone.run()
    one = alone.state()
    for part in ("model", "behaviour"):
        for name, value in one[part].items():
            assert torch.equal(first[part][name], second[part][name]), name
            torch.testing.assert_close(first[part][name], value, rtol=2e-3, atol=2e-4, msg=name)
    moved = max(float((start[k] - v).abs().max()) for k, v in one["model"].items())
    assert moved > 0.02, "a hundred times more than they may differ by"
    assert all(torch.equal(a, b) for a, b in zip(first["ends"], second["ends"], strict=True))
    assert one["progress"]["curves"].keys() == first["progress"]["curves"].keys()
    assert {"predict", "imagine", "cost", "actor", "critic"} <= first["progress"]["curves"].keys()
    for name, curve in one["progress"]["curves"].items():
        found = first["progress"]["curves"][name]
        assert found == second["progress"]["curves"][name]
        assert [v for _, v in found] == pytest.approx([v for _, v in curve], rel=5e-3, abs=1e-4)


@pytest.fixture
def words(tmp_path: Path, run_folder: Path) -> list[str]:
    spec = tmp_path / "mass.yaml"
    spec.write_text(SPEC)
    sizes = ["--memory", "6", "--units", "8", "--free", "2", "--actor-steps", "2"]
    where = ["--data", str(run_folder), "--out", str(tmp_path / "both")]
    return [*TORCHRUN, "-m", "models.cli", "train", str(spec), *where, *sizes]


@pytest.fixture
def process(words: list[str], tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A training without end, on its way."""
    with subprocess.Popen(
        [*words, "--steps", "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        try:
            note = tmp_path / ".both.training" / "progress.json"
            until = time.monotonic() + 120
            while not note.exists():
                assert started.poll() is None, started.communicate()
                assert time.monotonic() < until
                time.sleep(0.1)
            yield started
        finally:
            if started.poll() is None:
                started.kill()


def rank_of(process: "subprocess.Popen[str]", rank: int) -> psutil.Process:
    children = psutil.Process(process.pid).children(recursive=True)
    return next(c for c in children if c.environ().get("RANK") == str(rank))


def test_sigint_ends_both_after_the_same_update_and_they_go_on(
    process: "subprocess.Popen[str]", words: list[str], tmp_path: Path
) -> None:
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert told.count("Go on with: torchrun --nproc-per-node 2 -m models.cli train") == 1
    assert not (tmp_path / "both").exists()
    checkpoint = tmp_path / ".both.training" / "checkpoint.pt"
    kept = torch.load(checkpoint)["progress"]["step"]
    assert kept > 0
    other = [*words, "--steps", "100001", "--resume"]
    refused = subprocess.run(other, capture_output=True, text=True, timeout=120, check=False)
    assert "made with other settings" in refused.stderr
    assert refused.returncode != 0


def test_the_others_end_where_one_is_lost(process: "subprocess.Popen[str]") -> None:
    rank_of(process, 1).kill()
    _, told = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "another process of this training has ended" in told
    assert "--resume" in told


def test_the_first_writes_one_bundle_and_it_resumes(words: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [*words, "--steps", "6", "--json"], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    manifest = json.loads((tmp_path / "both" / "manifest.json").read_text())
    assert manifest["digest"] == summary["digest"]
    assert manifest["lineage"]["processes"] == 2
    again = [*words, "--steps", "6", "--resume", "--json"]
    resumed = subprocess.run(again, capture_output=True, text=True, timeout=200, check=False)
    graphs = {k: v["sha256"] for k, v in manifest["files"].items()}
    after = json.loads((tmp_path / "both" / "manifest.json").read_text())
    assert json.loads(resumed.stdout)["digest"] == after["digest"]
    assert {k: v["sha256"] for k, v in after["files"].items()} == graphs


def test_every_row_is_exactly_one_process_s() -> None:
    for count in (1, 2, 3, 5):
        parts = [Share(rank, count).part(35, 5) for rank in range(count)]
        rows = torch.cat([part.of(torch.arange(35)) for part in parts])
        assert sorted(rows.tolist()) == list(range(35))
        assert sum(part.share for part in parts) == pytest.approx(1.0)
        for part in parts:  # as many of each member, ordered by member
            members = part.of(torch.arange(35) // 7)
            assert members.tolist() == sorted(members.tolist())
            assert len(set(torch.bincount(members).tolist())) == 1


def test_fewer_windows_than_processes_are_refused() -> None:
    Share(0, 3).check(3, "sequence.batch", "windows")
    with pytest.raises(ShareError, match=r"sequence\.batch: 2 windows are too few for 3 processes"):
        Share(0, 3).check(2, "sequence.batch", "windows")
