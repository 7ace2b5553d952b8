"""Where an interrupted training goes on: the state of a stack at the end of an epoch, in the store beside the records.

A stack that goes on from it ends in the weights of one that was never interrupted, bit for bit: its generators, Adam's
moments and best weights are those of that epoch, and it is the same stack, on the same kind of device.
"""

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ginv import store

MOST_LOST = 60.0  # seconds of work that an interruption may cost; one epoch, where that takes longer
STATE = 1  # a change in what `train_stack` keeps counts this up, so that older checkpoints are not used


@dataclass(frozen=True)
class Checkpoint:
    """The state after an epoch of the runs of these specifications: tensors `[runs, ...]`, and the step of Adam."""

    runs: list[dict]
    epoch: int
    device: str
    seconds: float  # of training so far
    tensors: dict[str, Tensor]

    @property
    def specification(self) -> dict:
        here = {"device": self.device, "torch": torch.__version__, "state": STATE}  # others would give other bits
        return {"checkpoint": self.epoch, "runs": self.runs, **here}

    def of(self, runs: list[dict]) -> "Checkpoint":
        """That of some of the runs; they then go on as another stack, and end in the same weights up to rounding."""
        rows = [self.runs.index(run) for run in runs]
        return replace(self, runs=runs, tensors={n: t[rows] if t.ndim else t for n, t in self.tensors.items()})

    def restore(self, state: dict[str, Tensor], generators: list[Generator]) -> None:
        with torch.no_grad():
            for name, tensor in state.items():
                tensor.copy_(self.tensors[name])
        for generator, values in zip(generators, self.tensors["generators"], strict=True):
            generator.set_state(values.clone())  # of a row of a tensor, torch takes other bytes


def stored(device: str) -> list[Checkpoint]:
    """Those that can go on here, the latest epoch first. Removes what nobody needs any more."""
    found = []
    for tensors, record in store.checkpoints():
        wanted = record["specification"]
        checkpoint = Checkpoint(wanted["runs"], wanted["checkpoint"], device, record["seconds"], tensors)
        if all(map(store.contains, checkpoint.runs)):
            store.remove(wanted)
        elif checkpoint.specification == wanted:
            found.append(checkpoint)
    return sorted(found, key=lambda checkpoint: -checkpoint.epoch)
