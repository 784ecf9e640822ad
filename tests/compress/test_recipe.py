"""Recipes and project files: merged in order, refused with the reason."""

from pathlib import Path

import pytest

from compress.errors import RecipeError
from compress.recipe import Recipe, load, parse_budget, recipes


def project(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", recipes())
def test_every_shipped_recipe_loads(name: str) -> None:
    assert load(recipe=name).name == name


def test_the_project_file_wins_over_the_recipe_and_options_over_both(tmp_path: Path) -> None:
    path = project(tmp_path, 'target = "x86"\nseed = 3\n[distill]\nepochs = 2\n')
    found = load(path, overrides={"seed": 5})
    assert (found.target, found.seed, found.distill.epochs) == ("x86", 5, 2)
    assert found.distill.batch_size == load(recipe="default").distill.batch_size
    assert found.name == "mine"


def test_paths_in_a_project_file_are_relative_to_it(tmp_path: Path) -> None:
    path = project(tmp_path, '[task]\nfile = "task.py"\ndata = "data"\n[teacher]\nonnx = "../teacher.onnx"\n')
    found = load(path)
    assert found.task.file == tmp_path / "task.py"
    assert found.task.data == tmp_path / "data"
    assert found.teacher.onnx == tmp_path.parent / "teacher.onnx"


def test_a_task_has_its_own_recipe_where_there_is_one() -> None:
    assert load(overrides={"task": {"name": "digits"}}).name in ("default", "digits")


def test_json_round_trip() -> None:
    found = load(recipe="default", overrides={"budget": {"latency_ms": 2.5}})
    assert Recipe.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = 3", "unknown key 'epochs'"),
        ("[distill]\nepoch = 3", "did you mean 'distill.epochs'"),
        ('[distill]\nepochs = "three"', "'distill.epochs' must be a whole number, and is 'three'"),
        ("[distill]\nepochs = 2.5", "must be a whole number"),
        ("[distill]\nepochs = true", "must be a whole number"),
        ("[distill]\nepochs = 0", "must be greater than 0"),
        ("[distill]\nlearning_rate = nan", "must be greater than 0"),
        ('[distill]\nprecision = "fp8"', "one of 'auto', 'fp32', 'bf16'"),
        ('[quantize]\nranges = "entropy"', "one of 'minmax', 'percentile', 'mse', 'magnitude'"),
        ('[quantize]\nsteps = "learnt"', "one of 'observed', 'learned'"),
        ("[quantize]\npercentile = 0.9999", "in (50, 100]"),
        ("[budget]\nlatency_ms = -1", "must be greater than 0"),
        ("[budget]\naccuracy_drop = 5", "one point as 0.01"),
        ("[select]\ncaution = 2", "must be in"),
        ("[select]\ntraining = 0", "must be greater than 0"),
        ("distill = 3", "must be a table"),
        ('[distill]\nmethod = "vanila_kd"', "vanilla_kd"),
        ('[task]\nname = "digit"', "digits"),
        ("a = [", "not valid TOML"),
        ('recipe = "nothing"', "no recipe is called 'nothing'"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(project(tmp_path, text))
    assert message in str(caught.value)
    assert caught.value.fix


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"there is no file .*none\.toml"):
        load(tmp_path / "none.toml")


def test_budget_text() -> None:
    assert parse_budget("latency_ms=5, accuracy_drop=0.01,weight_bytes=64e3") == {
        "latency_ms": 5.0,
        "accuracy_drop": 0.01,
        "weight_bytes": 64000,
    }
    assert parse_budget("") == {}


@pytest.mark.parametrize("text", ["latency=5", "latency_ms", "latency_ms=fast", "weight_bytes=inf", "=3"])
def test_a_wrong_budget_is_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        parse_budget(text)


@pytest.mark.parametrize("clip", [0.0, -1.0, float("nan")])
def test_a_gradient_clip_that_would_stop_all_training_is_refused(clip: float) -> None:
    with pytest.raises(RecipeError, match=r"distill\.clip"):
        load(recipe="ofa_kd", overrides={"distill": {"clip": clip}})


def test_the_recipe_of_ofa_kd_clips_as_published() -> None:
    assert load(recipe="ofa_kd").distill.clip == 5.0
    assert load(recipe="default", overrides={"task": {"name": "digits"}}).distill.clip is None
