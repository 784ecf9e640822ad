"""Writes teacher.safetensors in a few seconds: python train_teacher.py"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from task import TASK
from teacher import build


def main(out: Path) -> float:
    """Train with the task's own numbers, save the weights, return the validation accuracy."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    splits, frontend, network = TASK.load(None), TASK.frontend(), build()
    numbers = TASK.teacher_numbers
    steps = len(splits.train) // numbers.batch_size
    optimiser = torch.optim.AdamW(network.parameters(), numbers.learning_rate, weight_decay=numbers.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, numbers.learning_rate, steps * numbers.epochs)
    for _ in range(numbers.epochs):
        order = torch.randperm(len(splits.train), generator=generator)
        for index in order[: steps * numbers.batch_size].split(numbers.batch_size):
            batch = TASK.augment(splits.train.batch(index), generator)
            assert batch.labels is not None
            loss = TASK.loss(network(frontend(*batch.inputs)), batch.labels).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    network.eval()
    save_file(network.state_dict(), out)
    batch = splits.val.batch(torch.arange(len(splits.val)))
    assert batch.labels is not None
    with torch.no_grad():
        return TASK.score(network(frontend(*batch.inputs)), batch.labels).mean().item()


if __name__ == "__main__":
    accuracy = main(Path(__file__).with_name("teacher.safetensors"))
    print(f"teacher.safetensors: {accuracy:.1%} of the validation pictures")
