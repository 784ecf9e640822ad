"""Damaged and hostile inputs are taken or refused with one message; `python -m tools.fuzz_inputs` tries thousands."""

import random
from pathlib import Path

import pytest

from profiles.errors import UserError
from tools import fuzz_inputs
from tools.fuzzing import mutations
from tools.fuzzing.kind import Kind

# kind -> cases with seed 0 that were faults once
ONCE_WRONG = {"recordings": (85,)}
CASES = {"projects": 60, "checkpoints": 60, "recordings": 100, "runs": 25, "commands": 12}


@pytest.mark.parametrize("name", fuzz_inputs.KINDS)
def test_no_case_is_a_fault(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kind = fuzz_inputs.kind_of(name)
    samples, place = tmp_path / "samples", tmp_path / "case"
    samples.mkdir()
    place.mkdir()
    prepared = kind.prepare(samples)
    outcomes = {}
    for number in (*range(CASES[name]), *ONCE_WRONG.get(name, ())):
        outcomes[number] = fuzz_inputs._outcome(kind, prepared, fuzz_inputs._generator(name, 0, number), place)
    assert {number: told for number, told in outcomes.items() if told[0] not in ("taken", "refused")} == {}
    assert {"taken", "refused"} >= {told[0] for told in outcomes.values()}


def test_faults_are_told_from_refusals(tmp_path: Path) -> None:
    def raises(error: BaseException) -> Kind:
        def examine(samples: object, rng: random.Random, folder: Path) -> None:
            raise error

        return Kind("any", lambda folder: None, examine)

    def outcome(error: BaseException) -> str:
        return fuzz_inputs._outcome(raises(error), None, random.Random(0), tmp_path)[0]

    assert outcome(UserError("found", fix="do")) == "refused"
    assert outcome(UserError("found", fix="")) == "error"
    assert outcome(ValueError("a shape")) == "error"
    assert outcome(MemoryError()) == "error"
    assert outcome(RecursionError()) == "error"


def test_mutations_repeat_from_their_seed_and_change_something() -> None:
    sound, tree = bytes(range(200)), {"a": [1, 2.0, "x"], "b": {"c": None, "d": True}}
    for number in range(50):
        damaged = [mutations.of_bytes(sound, random.Random(number)) for _ in range(2)]
        assert damaged[0] == damaged[1]
    assert sum(mutations.of_bytes(sound, random.Random(number)) != sound for number in range(50)) > 45
    assert sum(mutations.of_tree(tree, random.Random(number)) != tree for number in range(50)) > 40
    assert tree == {"a": [1, 2.0, "x"], "b": {"c": None, "d": True}}
