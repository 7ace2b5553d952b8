"""Where an interrupted training goes on: the state of a stack, in the store beside the records.

A stack that goes on from it ends in the weights of one that was never interrupted, bit for bit: its
generators, Adam's moments and best weights are those of that epoch, and it is the same stack, on
the same kind of device.
"""

import time
from dataclasses import dataclass

import torch

from ginv.recipe import Run
from ginv.runs import store
from ginv.stack import State

# Seconds of work that an interruption may cost; one epoch, where that takes longer
MOST_LOST = 60.0


@dataclass(frozen=True)
class Checkpoint:
    """Where a stack of runs, by their specifications, can go on: after so many epochs."""

    runs: list[dict]
    epoch: int
    device: str

    @property
    def specification(self) -> dict:
        """What names it in the store; another device, torch or version would give other bits."""
        here = {
            "device": self.device,
            "torch": torch.__version__,
            "state": store.VERSIONS["checkpoint"],
        }
        return {"checkpoint": self.epoch, "runs": self.runs, **here}

    def state(self, runs: list[dict]) -> State | None:
        """The state of some of the runs; None where it is gone, damaged, or none.

        They then go on as another stack, and end in the same weights up to rounding.
        """
        if (stored := store.load(self.specification)) is None:
            return None
        tensors, record = stored
        if any(t.ndim and len(t) != len(self.runs) for t in tensors.values()):
            return None
        rows = [self.runs.index(run) for run in runs]
        tensors = {name: t[rows] if t.ndim else t for name, t in tensors.items()}
        seconds = record.get("seconds")
        return State(self.epoch, seconds, tensors) if isinstance(seconds, float) else None


def stored(device: str) -> list[Checkpoint]:
    """Those that can go on here, the latest epoch first. Removes what nobody needs any more.

    Reads what they say of themselves and no tensors; what they hold is verified when it is used.
    """
    found = []
    for record in store.checkpoints():
        try:
            wanted = record["specification"]
            checkpoint = Checkpoint(wanted["runs"], wanted["checkpoint"], device)
            if all(map(store.contains, checkpoint.runs)):
                store.remove(wanted)
            elif checkpoint.specification == wanted and type(checkpoint.epoch) is int:
                found.append(checkpoint)
        except (LookupError, TypeError, ValueError):  # not one of ours, whatever it is
            continue
    return sorted(found, key=lambda checkpoint: -checkpoint.epoch)


class Keeper:
    """Stores the state of a stack before too much work would be lost, and that of its last epoch.

    `last` is the checkpoint that the stack began from, if it is of these runs alone: it goes once
    there is a later one.
    """

    def __init__(self, runs: list[Run], device: str, last: Checkpoint | None) -> None:
        self.specifications, self.epochs = [run.specification for run in runs], runs[0].epochs
        self.device, self.last = device, last
        self.kept_at = self.ended = time.perf_counter()

    def __call__(self, state: State) -> None:
        """After each epoch. The next one is taken to last as long as this one did."""
        now = time.perf_counter()
        if state.epoch == self.epochs or 2 * now - self.ended - self.kept_at > MOST_LOST:
            new = Checkpoint(self.specifications, state.epoch, self.device)
            store.save(new.specification, state.tensors, {"seconds": state.seconds})
            self.remove()
            self.last, self.kept_at = new, now
        self.ended = now

    def remove(self) -> None:
        """What nobody needs once there is something later."""
        if self.last:
            store.remove(self.last.specification)
