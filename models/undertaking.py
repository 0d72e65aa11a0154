"""From an environment to a bundle in one call: act and learn, export, judge, seal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra.plants.base import make_plant
from infra.plants.gym import spec_for
from infra.signals import stopping
from models.checkpoint import TrainingStopped
from models.costs import check as check_costs
from models.data import Sequences
from models.deployed import Acted, acted
from models.evaluation.held_out import evaluate
from models.evaluation.result import Evaluation
from models.evaluation.tell import brief
from models.evaluation.windows import WARM
from models.evaluation.world import Record, World
from models.online import JUDGED, Course, Online
from models.parent import keep_weights
from models.practice import Planned, Returns, Who, judge, random_return
from models.recipe import Recipe
from models.registry import write_bundle
from models.regret import Regret, regret
from models.replay import Mix, Replay
from models.revision import revision
from models.workflow import CHECKPOINT, SPEC, work_folder
from planner.fallback import check as check_fallback
from planner.session import Bundle
from schemas.system import SystemSpec, parse_spec

LEARNING = "learning.html"
COURSE = "course.json"
POLICIES: tuple[Who, ...] = ("both", "planner", "actor")


def online_of(recipe: Recipe) -> Online:
    """What a workflow that acts asks for. Raises `PlantError`."""
    env, deployment = recipe.env, recipe.deployment
    if env is None:
        raise ValueError("env: this workflow names no environment; add one, or give --env")
    text = _spec_text(recipe)
    spec = parse_spec(text, env.id)
    check_fallback(spec)
    recipe.acceptance().check(spec)
    check_costs(spec, recipe.train_config().model)
    plant = make_plant(spec, entities=recipe.loop.copies)
    judged = make_plant(spec, entities=recipe.loop.judged)
    episode = getattr(plant, "episode", None)
    ticks = recipe.loop.ticks or episode
    if ticks is None:
        raise ValueError(f"loop.ticks: episodes of {env.id} never end by themselves; say how long")
    budget = spec.budget.model_copy(update={"caution": deployment.caution})
    spec = spec.model_copy(update={"budget": budget})
    config = recipe.train_config()
    loop, compute = recipe.loop_config(ticks), recipe.compute()
    return Online(spec, plant, judged, loop, config, compute, judged_ticks=episode or ticks)


def _spec_text(recipe: Recipe) -> str:
    """The spec that belongs to the bundle, as YAML."""
    env, deployment = recipe.env, recipe.deployment
    assert env is not None
    tiers = {n: t.model_dump(exclude_defaults=True) for n, t in deployment.tiers.items()}
    budget = {"deadline": deployment.deadline, "caution": deployment.caution, "tiers": tiers}
    options = {**env.options, **({"randomise": env.randomise} if env.randomise else {})}
    text = spec_for(env.id, entities=recipe.loop.copies, budget=budget, **options)
    return deployment.spec_text(text)


def train_online(
    online: Online,
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    command: str = "",
    report: Callable[[Course, str], None] | None = None,
) -> dict[str, Any]:
    """Learns from acting as `recipe` says, and writes the bundle `out`; what was reached.

    All returns are of the exported bundle, from the same fixed resets: `both`, the planner with
    actor and value as it runs; `planner` without them; `actor` without planning; `random`. SIGINT
    and SIGTERM end it between two updates; what was kept is the last whole round.

    Raises:
        CheckpointError, ParityError, PlantError: with the remedy.
        TrainingStopped: it was interrupted.
    """
    work, began = work_folder(out), time.monotonic()
    checkpoint = work / CHECKPOINT
    if resume and checkpoint.exists():
        online.load(checkpoint)
    with stopping() as stop:
        online.run(checkpoint, report, stop)
        finished = online.done and online.finish(report, stop)
    kept = TrainingStopped(checkpoint, online.course.steps, online.loop.steps)
    if not finished:
        raise kept
    try:
        say = report or (lambda course, text: None)
        assert online.trainer is not None
        keep_weights(work, online.trainer, online.fingerprint())
        result = _release(online, recipe, out, command, say)
        (out / SPEC).write_text(_spec_text(recipe), encoding="utf-8")
    except KeyboardInterrupt:
        raise kept from None
    result |= {"wall_s": round(time.monotonic() - began), "resumed": resume}
    (work / COURSE).write_text(json.dumps(asdict(online.course) | {"result": result}))
    draw_course(work / LEARNING, online.course, result)
    return result


def _release(
    online: Online, recipe: Recipe, out: Path, command: str, say: Callable[[Course, str], None]
) -> dict[str, Any]:
    trainer = online.trainer
    assert trainer is not None
    seed = online.config.seed + JUDGED
    chance = random_return(online.spec, online.judged, online.live(), online.judged_ticks, seed)
    say(online.course, "judging the actor")
    trusted = bool(online.judge("actor").each.mean() > chance.each.mean())
    model, behaviour = trainer.model.cpu(), trainer.behaviour.cpu()
    returns, held_out = {"random": chance}, list[Sequences]()
    accept, records, results = recipe.acceptance(), list[Record](), list[Evaluation]()

    def measure(bundle: Bundle) -> tuple[dict[str, Any], dict[str, Any]]:
        for who in POLICIES:
            if who == "actor" and not bundle.trusted_actor(online.spec):
                continue
            say(online.course, f"judging: {who}")
            returns[who], record = _judge(online, bundle, who, seed)
            records.append(record)
        held_out.append(judged_on(online.spec, records, online.replay))
        found = evaluate(bundle, online.spec, held_out[0], band=accept.innovation)
        results.append(found)
        metrics = {
            "held_out": brief(found),
            "returns": {name: one.as_dict() for name, one in returns.items()},
            "train_seconds": round(trainer.progress.seconds),
        }
        discount = online.config.actor.discount
        calibration, monitors = accept.calibration(bundle, online.spec, found, discount)
        return calibration, metrics | monitors

    def judged(bundle: Bundle) -> dict[str, Any]:
        def act() -> Acted:
            if bundle.manifest.calibration.max_uncertainty is None:  # then the gate changes nothing
                return Acted.of(online.spec, returns["both"], records[0])
            return acted(online.spec, bundle, online.judged, online.judged_ticks, seed)

        def tell(stage: str) -> None:
            say(online.course, f"judging: {stage}")

        return accept.judge(bundle, online.spec, results[-1], act, tell)

    def weigh(exact: Bundle, coarse: Bundle) -> Regret:
        return regret(exact, coarse, online.spec, held_out[0], online.config.seed)

    say(online.course, "exporting")
    lineage = {
        "command": command,
        "code": revision(),
        "spec": {"name": online.spec.system, "spec_hash": online.spec.spec_hash},
        "plant": online.plant.version,
        "options": dict(online.spec.plant.params) if online.spec.plant else {},
        "config": asdict(online.config),
        "compute": asdict(online.compute),
        "workflow": recipe.model_dump(mode="json", exclude={"run"}),
        "scales": [c.as_dict() for c in (*trainer.dataset.columns, *trainer.dataset.actions)],
        "seed": online.config.seed,
        "steps": online.course.steps,
        "widened": online.course.widened,
        "restarts": online.course.restarts,
        "fingerprint": online.fingerprint(),
    }
    manifest = write_bundle(
        out,
        online.spec,
        model,
        behaviour,
        name=online.spec.system,
        measure=measure,
        weigh=weigh,
        judge=judged,
        lineage=lineage,
        with_actor=True,
        actor_trusted=trusted,
    )
    return _told(online, manifest, out, returns)


def _told(
    online: Online, manifest: dict[str, Any], out: Path, returns: dict[str, Returns]
) -> dict[str, Any]:
    """What the command says of the run."""
    mean = {name: float(one.each.mean()) for name, one in returns.items()}
    gain = mean["both"] - mean["actor"] if "actor" in mean else None
    told = manifest["metrics"]
    more = {k: told[k] for k in ("passed", "out_of_distribution") if k in told}
    return {
        "system": online.spec.system,
        "seed": online.config.seed,
        "steps": online.course.steps,
        "unit": "decisions of all environments together, those of chance included",
        "environments": len(online.plant.entities),
        "returns": {name: one.as_dict() for name, one in returns.items()},
        "planner_minus_actor": None if gain is None else round(gain, 2),
        "curve": online.course.curve,
        "widened": online.course.widened,
        "restarts": online.course.restarts,
        "actor_trusted": manifest["actor_trusted"],
        "digest": manifest["digest"],
        "bundle": str(out),
        "metrics": told["asked"],
        **more,
    }


def _judge(online: Online, bundle: Bundle, who: Who, seed: int) -> tuple[Returns, Record]:
    world = World(online.spec, online.judged, bundle)
    policy = Planned(online.spec, bundle, world.entities, seed, who=who)
    return judge(world, policy, online.judged_ticks, seed)


def judged_on(spec: SystemSpec, records: Sequence[Record], lived: Replay) -> Sequences:
    """The episodes in which it was judged, as held-out data; those of practice where all are short.

    Raises:
        ValueError: these are too short as well.
    """
    judged = Replay(1 << 40, Mix())
    for record in records:
        judged.add(spec, record)
    for replay in (judged, lived):
        if max((len(episode) for episode in replay.episodes), default=0) >= WARM + 2:
            return replay.sequences()
    raise ValueError(f"no episode of {WARM + 2} ticks was reached: there is nothing to judge")


def draw_course(path: Path, course: Course, result: dict[str, Any]) -> None:
    """The learning curve as a page: returns while practising, and as judged, against steps."""
    import plotly.graph_objects as go

    figure = go.Figure()
    steps, practised = zip(*course.rounds_returned, strict=True)
    figure.add_scatter(x=steps, y=practised, mode="lines", name="while practising", opacity=0.5)
    for who in ("actor", "both"):
        points = [(at["steps"], at[who]) for at in course.curve]
        points.append((course.steps, result["returns"].get(who, {}).get("mean")))
        x, y = zip(*points, strict=True)
        figure.add_scatter(x=x, y=y, mode="lines+markers", name=who)
    chance = result["returns"]["random"]["mean"]
    figure.add_hline(y=chance, line_dash="dot", annotation_text="chance")
    for at in course.restarts:
        figure.add_vline(x=at, line_dash="dot", line_width=1)
    figure.update_layout(
        title=f"{result['system']}, seed {result['seed']}: return of an episode",
        xaxis_title="decisions",
        yaxis_title="return",
        width=1000,
        height=500,
        legend={"orientation": "h"},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(path, include_plotlyjs="directory")
