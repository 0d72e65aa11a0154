"""Training is reproducible, survives SIGKILL, learns the dynamics, and its actor acts."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.actor import Behaviour
from models.belief import WorldModel
from models.checkpoint import CheckpointError
from models.data import Batch
from models.losses import Trace, lived, observe
from models.train import Trainer
from models.trust import trial
from tests.models.conftest import TINY, Trained

SHORT = replace(TINY, steps=40, actor_steps=20, checkpoint_every=10)
KILLED = """
import sys
from pathlib import Path
import torch
from tests.models.conftest import *
from tests.models.test_train import SHORT
torch.set_num_threads(1)
spec = mass_spec()
trainer = Trainer(spec, load_dataset(spec, [Path(sys.argv[1])]), SHORT)
trainer.run(Path(sys.argv[2]), lambda p: print(p.step, flush=True))
"""


def _weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {**trainer.model.state_dict(), **trainer.behaviour.state_dict()}


def test_killed_and_resumed_equals_uninterrupted(trained: Trained, tmp_path: Path) -> None:
    whole = Trainer(trained.spec, trained.dataset, SHORT)
    whole.run()
    checkpoint = tmp_path / "checkpoint.pt"
    command = [sys.executable, "-c", KILLED, str(trained.folder), str(checkpoint)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 55:  # in the middle of the actor's part
            os.kill(process.pid, signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    resumed = Trainer(trained.spec, trained.dataset, SHORT)
    resumed.load(checkpoint)
    assert 50 <= resumed.progress.step < SHORT.total
    resumed.run()
    for name, value in _weights(whole).items():
        assert torch.equal(value, _weights(resumed)[name]), name
    assert [list(p) for p in resumed.progress.curves["actor"]] == [
        list(p) for p in whole.progress.curves["actor"]
    ]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_the_imagined_futures_goes_on_from_the_last_ones(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    actor = replace(SHORT.actor, go_on=share)
    trainer = Trainer(trained.spec, trained.dataset, replace(SHORT, steps=0, actor=actor))
    trainer.model.load_state_dict(trained.trainer.model.state_dict())  # it knows that life goes on
    begun = []
    losses = trainer.behaviour.losses

    def noted(model: WorldModel, *args: Any) -> Any:
        begun.append(args[2])  # the latents
        return losses(model, *args)

    monkeypatch.setattr(trainer.behaviour, "losses", noted)
    trainer.update()
    assert trainer.ends is not None
    before = {tuple(row) for row in trainer.ends[2].tolist()}
    trainer.update()
    went_on = [tuple(row) in before for row in begun[1].tolist()]
    assert len(before) > 30
    assert sum(went_on) == share * len(went_on)


def lived_window(trained: Trained) -> tuple[Trainer, Batch, Trace]:
    """Four windows of six ticks, two of which end after four; row t has reached 10 t."""
    trainer = Trainer(trained.spec, trained.dataset, replace(SHORT, length=6, batch=4))
    batch = trainer.batch(0)
    valid = batch.valid.clone()
    valid[:2, 4:] = 0.0
    reached = 10.0 * torch.arange(6.0).expand(4, 6)
    batch = replace(batch, valid=valid, reached=reached)
    return trainer, batch, observe(trainer.model, batch, batch.mask)


def test_what_was_reached_belongs_to_what_was_done_next(trained: Trained) -> None:
    trainer, batch, trace = lived_window(trained)
    (last, memory, latent), acted, reached = lived(trainer.model, batch, trace)
    action = trainer.model.action_scaler(batch.action)
    rows = 2 * 4 + 3  # the third of ticks 1 to 4, of the fourth window
    torch.testing.assert_close(acted[rows], action[3, 4])
    torch.testing.assert_close(last[rows], action[3, 3])
    torch.testing.assert_close(memory[rows], trace.memory()[3, 3])
    torch.testing.assert_close(latent[rows], trace.stack("mean")[3, 3])
    told = reached.view(4, 4)
    assert told[:, 3].tolist() == [10, 20, 30, 40]
    assert told[:2, 0].tolist() == [10, 20], "after tick 3 nothing was done in the first windows"
    assert torch.isnan(told[2:, :2]).all()


def test_only_what_is_better_than_the_value_is_imitated(trained: Trained) -> None:
    trainer, batch, trace = lived_window(trained)
    config = replace(trainer.behaviour.config, imitation=2.0)
    trainer.behaviour.config = config
    state, acted, _ = lived(trainer.model, batch, trace)
    value = trainer.behaviour.critic(*state).detach()
    wanted = trainer.model.action_scaler(trainer.behaviour.actor.target(*state)).detach()
    unit = trainer.behaviour.critic.head.scale

    def losses(reached: torch.Tensor, acted: torch.Tensor) -> dict[str, float]:
        found = trainer.behaviour.imitation(trainer.model, state, acted, reached)
        return {name: float(loss.detach()) for name, loss in found.items()}

    assert losses(value - 0.1 * unit, acted) == {"actor": 0.0, "critic": 0.0}
    assert losses(torch.full_like(value, torch.nan), acted) == {"actor": 0.0, "critic": 0.0}
    better = losses(value + 0.5 * unit, wanted + 1.0)
    assert better == pytest.approx({"actor": 2.0 * 0.5, "critic": 2.0 * 0.5 * 0.5**2}, rel=1e-4)
    assert losses(value + 0.5 * unit, wanted)["actor"] == pytest.approx(0.0, abs=1e-9)


def test_another_seed_gives_other_weights(trained: Trained) -> None:
    few = replace(SHORT, steps=3, actor_steps=0)
    runs = [Trainer(trained.spec, trained.dataset, replace(few, seed=s)) for s in (0, 0, 1)]
    for run in runs:
        run.run()
    same, again, other = (_weights(run)["memory.gates.weight"] for run in runs)
    assert torch.equal(same, again)
    assert not torch.equal(same, other)


def test_a_checkpoint_of_other_settings_is_refused(trained: Trained, tmp_path: Path) -> None:
    trainer = Trainer(trained.spec, trained.dataset, SHORT)
    trainer.save(tmp_path / "c.pt")
    other = Trainer(trained.spec, trained.dataset, replace(SHORT, seed=9))
    with pytest.raises(CheckpointError, match="other settings"):
        other.load(tmp_path / "c.pt")


def test_losses_fall(trained: Trained) -> None:
    curves = trained.trainer.progress.curves
    for name in ("predict", "imagine", "share"):
        values = [value for _, value in curves[name]]
        assert sum(values[-20:]) < 0.7 * sum(values[:20]) or sum(values[-20:]) < 0


def _trial(trained: Trained, behaviour: Behaviour) -> tuple[float, float, bool]:
    data, model = trained.dataset.validation, trained.trainer.model
    weights = torch.ones(len(data) // 64 + 1, 5)
    starts = data.segments[:, 0]
    batch = data.window(starts, 30, weights)
    result = trial(model, behaviour, batch, 12, torch.Generator().manual_seed(0))
    return sum(result.actor) / 5, sum(result.logged) / 5, result.trusted


def test_the_actor_beats_what_was_logged_and_an_untrained_one(trained: Trained) -> None:
    actor, logged, trusted = _trial(trained, trained.trainer.behaviour)
    torch.manual_seed(0)
    raw = Behaviour(trained.spec, trained.trainer.model, TINY.actor)
    untrained, _, _ = _trial(trained, raw)
    assert trusted
    assert actor > logged
    assert actor > untrained


def test_the_actor_respects_range_and_rate(trained: Trained) -> None:
    model, behaviour = trained.trainer.model, trained.trainer.behaviour
    h, z = torch.zeros(4, model.hidden), torch.zeros(4, model.latent)
    place = torch.tensor([[30.0], [-30.0], [1.0], [0.0]])
    obs = torch.cat([place, torch.zeros(4, 2)], 1)
    last = torch.tensor([[1.8], [-1.8], [0.0], [0.5]])
    with torch.no_grad():
        h, z, *_ = model.believe(h, z, last, obs, torch.ones(4, 3))
        action, value = behaviour.act(model, h, z)
    assert ((action - last).abs() <= 1.0 + 1e-5).all()
    assert (action.abs() <= 2.0).all()
    assert action[0] < last[0]
    assert action[1] > last[1]
    assert torch.isfinite(value).all()


def test_a_slope_that_is_infinite_does_not_poison_the_actor(trained: Trained) -> None:
    from models.actor import _finite_gradients

    x = torch.zeros(3, requires_grad=True)
    torch.sqrt(_finite_gradients(x * 1.0) * 0.0).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_time_is_counted(trained: Trained) -> None:
    began = time.perf_counter()
    trainer = Trainer(trained.spec, trained.dataset, replace(SHORT, steps=2, actor_steps=0))
    trainer.run()
    assert 0 < trainer.progress.seconds <= time.perf_counter() - began


def test_noise_may_learn_faster_than_the_rest(trained: Trained) -> None:
    moved = {}
    for rate in (1.0, 10.0):
        trainer = Trainer(trained.spec, trained.dataset, replace(SHORT, noise_rate=rate))
        before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
        for _ in range(8):
            trainer.update()
        after = dict(trainer.model.named_parameters())
        moved[rate] = {
            name: float((after[name] - p).detach().abs().mean()) for name, p in before.items()
        }
    assert moved[10.0]["log_noise"] > 5 * moved[1.0]["log_noise"]
    assert moved[10.0]["retention"] > 5 * moved[1.0]["retention"]
    others = "memory.gates.weight"
    assert 0.7 < moved[10.0][others] / moved[1.0][others] < 1.4
