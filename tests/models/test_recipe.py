"""Workflow files: every option has its place, and what is wrong is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from infra.plants.base import PlantError
from infra.plants.gym import GymPlant
from models.cli import app
from models.recipe import SHIPPED, Recipe, RecipeError, is_recipe, load_recipe, parse_recipe
from models.undertaking import online_of
from schemas.system import parse_spec
from tests.models.synthetic import SPEC

TIER = "{candidates: 9, horizon: 2, iterations: 1}"
ABOUT_THIS_RUN = {"what", "resume", "as_json", "help"}


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_workflows_can_be_used(file: Path) -> None:
    recipe = load_recipe(file.stem)
    assert recipe.workflow == file.stem
    assert is_recipe(file)
    assert recipe.loop_config(200).ticks == {"few": 100, "control": 250}[file.stem]
    assert recipe.train_config().model.members == recipe.ensemble.members


def test_every_option_has_its_place_in_the_file() -> None:
    command = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    fields = Recipe.model_json_schema()
    places = 0
    for parameter in command.params:
        if parameter.name in ABOUT_THIS_RUN:
            continue
        help_text = parameter.help
        place = help_text[help_text.rindex("(") + 1 : -1]
        part = fields
        for name in place.split("."):
            properties = part["properties"]
            assert name in properties, f"--{parameter.name}: {place} is no field"
            part = properties[name]
            for kind in [part, *part.get("anyOf", [])]:
                if "$ref" in kind:
                    part = fields["$defs"][kind["$ref"].rpartition("/")[2]]
        places += 1
    assert places >= 18


def test_options_win_over_the_file() -> None:
    recipe = parse_recipe("workflow: mine\nsystem: nav2d\nloop: {steps: 10}\nseed: 4\n")
    changed = recipe.with_options({"loop.steps": 20, "seed": None, "data.split": "entity"})
    assert (changed.loop.steps, changed.seed, changed.data.split) == (20, 4, "entity")
    assert recipe.loop.steps == 10
    with pytest.raises(RecipeError, match=r"loop\.steps"):
        recipe.with_options({"loop.steps": 0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workflow: x\nloop:\n  stepz: 3\n", r"f\.yaml:3: loop\.stepz: there is no such field"),
        ("workflow: x\nensemble: {members: 1}\n", r"f\.yaml:2: ensemble\.members: .*greater"),
        ("workflow: x\nsystem: a\nenv: {id: b}\n", r"f\.yaml:1: workflow: system .* or env"),
        ("workflow: x\nbuffer: {recent: 0.9, surprising: 0.9}\n", r"f\.yaml:2: buffer: .*1\.8 of"),
        (
            "workflow: x\nenv: {id: b}\ndata: {folders: [c]}\n",
            r"f\.yaml:1: workflow: data: .*acting",
        ),
        (
            "workflow: x\nenv: {id: b}\nactor_critic: {enabled: false}\n",
            r"workflow: actor_critic: ",
        ),
        ("workflow: x\nmetrics:\n  mse: 1\n", r"f\.yaml:3: metrics\.mse: 'mse' is no .*one_step_"),
        ("workflow: x\nmetrics: [rollout_error@51]\n", r"f\.yaml:2: metrics\..*K from 1 to 50"),
        ("workflow: x\nmetrics: [rollout_error@0]\n", r"f\.yaml:2: metrics\."),
        ("workflow: x\nmetrics: {task_return: .nan}\n", r"metrics\.task_return: .*finite"),
        (
            "workflow: x\nmetrics: [task_return, task_return]\n",
            r"metrics: task_return stands twice",
        ),
        (
            "workflow: x\nmetrics:\n  task_return: .nan\n",
            r"f\.yaml:3: metrics\.task_return: .*finite",
        ),
        ("workflow: x\nheads: {only: reward}\n", r"f\.yaml:2: heads: only and of: name the head"),
        (
            "workflow: x\nenv: {id: A}\nheads: {only: reward, of: b}\n",
            r"heads\.only: one head is learned from logs",
        ),
        ("workflow: x\nmetrics: 3\n", r"f\.yaml:2: metrics: write a list"),
        ("workflow: x\nshifts: [mass,\n wind]\n", r"f\.yaml:3: shifts\.1: .*'friction'"),
        ("workflow: x\ndeployment:\n  fallback: fly\n", r"f\.yaml:3: .*fallback\.kind: .*'hold'"),
        (
            "workflow: x\ndeployment: {monitors: {disagreement: 2}}\n",
            r"f\.yaml:2: deployment\.monitors\.disagreement",
        ),
        (
            f"workflow: x\nsystem: a\ndeployment: {{practice: {TIER}}}\n",
            r"workflow: deployment\.practice: ",
        ),
        ("- a\n", r"f\.yaml:1: a workflow is a mapping"),
        ("workflow: [\n", r"f\.yaml:2:1: not valid YAML"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(text, "f.yaml")


def test_a_missing_file_names_those_that_are_shipped(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="or one of control, few"):
        load_recipe(tmp_path / "none.yaml")
    assert not is_recipe(tmp_path / "none.yaml")


def test_deepmind_control_is_acted_in_at_action_repeat_2() -> None:
    recipe = parse_recipe("workflow: x\nenv: {id: dm_control/reacher-easy}\n")
    assert recipe.env is not None
    assert recipe.env.options == {"action_repeat": 2}
    other = parse_recipe("workflow: x\nenv: {id: dm_control/a-b, options: {action_repeat: 1}}\n")
    assert other.env is not None
    assert other.env.options == {"action_repeat": 1}


def test_ranges_of_an_environment_are_drawn_from_and_change_what_a_checkpoint_fits() -> None:
    text = "workflow: x\nenv: {id: Pendulum-v1}\n"
    plain = online_of(parse_recipe(text))
    recipe = parse_recipe(text).with_options({"env.randomise": {"m": [0.5, 2.0]}})
    online = online_of(recipe)
    for plant in (online.plant, online.judged):
        assert isinstance(plant, GymPlant)
        plant.reset(0)
        assert len(set(plant.values["m"])) == len(plant.entities)
    assert online.spec.plant is not None
    assert online.spec.plant.randomise == {"m": (0.5, 2.0)}
    assert online.fingerprint() != plain.fingerprint()
    assert "randomise" not in parse_recipe(text).model_dump()["env"]
    with pytest.raises(RecipeError, match=r"f\.yaml:2: env\.randomise\.m: .*low to high"):
        parse_recipe("workflow: x\nenv: {id: Pendulum-v1, randomise: {m: [2, 1]}}\n", "f.yaml")
    with pytest.raises(PlantError, match="no parameter 'mass'; it has m, l, g, friction"):
        online_of(parse_recipe("workflow: x\nenv: {id: Pendulum-v1, randomise: {mass: [1, 2]}}\n"))


def test_metrics_are_a_list_of_names_or_a_mapping_to_bounds() -> None:
    mixed = parse_recipe("workflow: x\nmetrics: [one_step_loss, {rollout_error@5: 0.8}]\n")
    assert mixed.metrics == {"one_step_loss": None, "rollout_error@5": 0.8}
    mapped = parse_recipe("workflow: x\nmetrics: {one_step_loss: , rollout_error@5: 0.8}\n")
    assert mapped.metrics == mixed.metrics
    assert mapped.with_options({"seed": 3}).metrics == mapped.metrics
    assert parse_recipe("workflow: x\nmetrics: []\n").metrics == {}


def test_what_is_asked_of_the_bundle_is_handed_on() -> None:
    text = """
    workflow: x
    seed: 4
    metrics: {task_return: 2}
    shifts: [delay]
    loop: {judged: 3, ticks: 50}
    deployment: {monitors: {innovation: 0.9, disagreement: 0.8}}
    """
    asked = parse_recipe(text).acceptance()
    wanted = ({"task_return": 2.0}, ("delay",), 0.9, 0.8, 3, 50, 4)
    assert tuple(vars(asked).values()) == wanted


def test_a_spec_is_changed_only_where_the_workflow_says_so() -> None:
    text = SPEC
    assert parse_recipe("workflow: x\n").deployment.spec_text(text) == text
    more = "workflow: x\ndeployment: {fallback: hold, deadline: 5 ms, caution: 2}\n"
    was, made = parse_spec(text), parse_spec(parse_recipe(more).deployment.spec_text(text))
    assert (made.fallback.kind, made.deadline_us, made.budget.caution) == ("hold", 5000, 2.0)
    assert made.budget.tiers == was.budget.tiers
    tiers = "deployment: {tiers: {only: {candidates: 9, horizon: 2, iterations: 1}}}\n"
    other = parse_spec(parse_recipe("workflow: x\n" + tiers).deployment.spec_text(text))
    assert list(other.budget.tiers) == ["only"]
    assert other.fallback == was.fallback
    assert other.interface_hash == made.interface_hash == was.interface_hash
