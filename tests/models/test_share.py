"""Two real processes on gloo learn what one does from the same batches, and end together."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from models.data import load_dataset
from models.share import ALONE, Share, ShareError
from models.train import TrainConfig, Trainer
from schemas.system import parse_spec
from tests.models.conftest import TINY
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
import os
import signal
import sys
from pathlib import Path
import torch
from models.share import ShareError, joined
from tests.models.test_share import shared
torch.set_num_threads(1)
folder = Path(sys.argv[2])
# torchrun ends the others as soon as it sees that one has ended; here, one is to tell first.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with joined("cpu") as share:
    trainer = shared(Path(sys.argv[1]), share)
    trainer.run()
    torch.save(trainer.state(), folder / f"{share.rank}.pt")
    try:
        share.agree(str(share.rank), "data")
    except ShareError as error:
        (folder / f"{share.rank}.differ").write_text(str(error))
    told = share.of_first(b"of the first" if share.leads else b"")
    (folder / f"{share.rank}.told").write_bytes(told + str(share.any(not share.leads)).encode())
    if not share.leads:
        os._exit(7)
    try:
        share.any(False)
    except ShareError as error:
        (folder / "lost").write_text(str(error))
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
PATIENT = 280
"""Seconds for what takes ten on a machine with nothing else to do."""
WORKFLOW = """
workflow: small
system: {system}
data: {{folders: [{folder}]}}
sequence: {{batch: 4, length: 8}}
learning: {{horizon: 2, starts: 10, samples: 2}}
ensemble: {{units: 8}}
dynamics: {{memory: 6, free: 2}}
actor_critic: {{enabled: false}}
loop: {{steps: 200}}
run: {{out: {out}}}
"""


def shared(folder: Path, share: Share = ALONE, config: TrainConfig = SHORT) -> Trainer:
    """Learns from `folder`, as much of it as is this process's."""
    spec = parse_spec(COSTLY)
    dataset = load_dataset(spec, [folder])
    reached = dataset.train.reward * 3  # for the imitation
    dataset = replace(dataset, train=replace(dataset.train, reached=reached))
    return Trainer(spec, dataset, config, share=share)


@contextmanager
def torchrun(words: list[str]) -> "Iterator[subprocess.Popen[str]]":
    """A running command; in the end, neither it nor what it started is left."""
    with_path, pipe = os.environ | {"PYTHONPATH": os.curdir}, subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, env=with_path) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                for started in psutil.Process(process.pid).children(recursive=True):
                    started.kill()  # each is in a session of its own
                process.kill()


@pytest.mark.timeout(900)
def test_both_have_the_same_weights_and_those_of_one_process(
    run_folder: Path, tmp_path: Path
) -> None:
    script = tmp_path / "each.py"
    script.write_text(EACH)
    command = [*TORCHRUN, str(script), str(run_folder), str(tmp_path)]
    with torchrun(command) as process:
        process.communicate(timeout=PATIENT)
    assert process.returncode != 0, "one is lost in the end"
    for rank in "01":
        assert "processes 0 and 1 have different data" in (tmp_path / f"{rank}.differ").read_text()
        assert (tmp_path / f"{rank}.told").read_text() == "of the firstTrue"
    lost = (tmp_path / "lost").read_text()
    assert "another process of this training has ended" in lost
    assert "--resume" in lost
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    alone = shared(run_folder)
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


@pytest.mark.timeout(900)
def test_sigint_ends_both_after_the_same_update_and_they_go_on(
    run_folder: Path, tmp_path: Path
) -> None:
    system, out, work = tmp_path / "mass.yaml", tmp_path / "both", tmp_path / ".both.training"
    system.write_text(SPEC)
    workflow = tmp_path / "small.yaml"
    workflow.write_text(WORKFLOW.format(system=system, folder=run_folder, out=out))
    words = [*TORCHRUN, "-m", "models.cli", "train", str(workflow), "--json"]
    with torchrun(words) as process:
        until = time.monotonic() + PATIENT
        while not (work / "progress.json").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=PATIENT)
    assert told.count("Go on with: torchrun --nproc-per-node 2 -m models.cli train") == 1
    assert not out.exists()
    kept = torch.load(work / "checkpoint.pt")["progress"]["step"]
    assert 0 < kept < 200
    with torchrun([*words, "--resume"]) as process:
        found, told = process.communicate(timeout=PATIENT)
    assert process.returncode == 0, told
    summary = json.loads(found)  # the first one's alone
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["digest"] == summary["digest"]
    assert manifest["lineage"]["processes"] == 2
    curve = json.loads((work / "curves.json").read_text())["predict"]
    assert [step for step, _ in curve] == list(range(1, 201)), "none twice, none left out"


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
