"""What experiments share: cuts that repeat, epochs of any length, answers that are asked for once."""

import torch

from compress.contracts.examples import TensorExamples
from compress.contracts.task import TrainingNumbers
from compress.methods.vanilla_kd import METHOD
from compress.reproduction import bed
from compress.training.order import steps_per_epoch


def pictures(count: int) -> TensorExamples:
    source = torch.Generator().manual_seed(0)
    return TensorExamples(
        torch.randn(count, 1, 14, 14, generator=source), torch.arange(count) % 10, f"noise of {count}"
    )


def test_positions_are_different_and_a_smaller_cut_begins_a_larger_one() -> None:
    few, many = bed.some(5, 3), bed.some(100, 3)
    assert len(set(many.tolist())) == 100
    assert torch.equal(few, many[:5])
    assert not torch.equal(few, bed.some(5, 4))


def test_repeated_examples_make_an_epoch_as_long_as_wanted() -> None:
    long = bed.Repeated(pictures(3), 64 * 20)
    assert steps_per_epoch(len(long), 64) == 20
    batch = long.batch(torch.tensor([0, 3, 7]))
    assert batch.index.tolist() == [0, 3, 7]  # positions in the stream, which is what caches are keyed by
    assert torch.equal(batch.inputs[0], pictures(3).batch(torch.tensor([0, 0, 1])).inputs[0])
    assert long.fingerprint() != bed.Repeated(pictures(3), 64).fingerprint() != pictures(3).fingerprint()


def test_the_same_seed_gives_the_same_network() -> None:
    first, again, other = (bed.seeded(seed, lambda: bed.mlp((4,), 10)) for seed in (1, 1, 2))
    weights = [next(network.parameters()) for network in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_method_teaches_with_its_own_objectives_and_answers_asked_for_once_are_the_networks() -> None:
    train, numbers = pictures(40), TrainingNumbers(epochs=2, batch_size=20, learning_rate=1e-2)
    teacher = bed.seeded(9, lambda: bed.mlp((8,), 10))
    students = []
    for asked in (bed.frozen(teacher), bed.remembered(teacher, train)):
        student = bed.seeded(0, lambda: bed.mlp((4,), 10))
        students.append(bed.taught(student, bed.only(train), numbers, 0, method=METHOD, teachers={"teacher": asked}))
    first, second = (bed.answers(student, train) for student in students)
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)  # one pass of 40 rows against batches of 20
    assert not torch.allclose(first, bed.answers(bed.seeded(0, lambda: bed.mlp((4,), 10)), train))
