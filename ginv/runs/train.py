"""Trained runs, from the store where they are there.

A trained run is stored at once, and the state of a long training once a minute: interrupted in
whatever way, it goes on where it was. Two processes that want the same run train it once.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from threading import Event

import torch
from torch import Generator

from ginv.data import load_dataset
from ginv.machine import choose_device, plain_torch, threads_kept
from ginv.recipe import Run
from ginv.refuse import require
from ginv.runs import checkpoints, costs, store
from ginv.runs.checkpoints import Checkpoint, Keeper
from ginv.stack import Diverged, TrainedRun, shared_by_stack, train_stack

# On a CPU more runs in a stack are no faster: their parameters and Adam's moments leave its cache
LARGEST_STACK = {"cpu": 4, "cuda": 64}
MOST_RUNS = 100_000  # more are a slip


def train(
    runs: Iterable[Run], *, device: str = "auto", progress: bool = True
) -> dict[Run, TrainedRun]:
    """Load the runs that are in the store and train the others, those of one architecture stacked.

    device: "auto", "cpu" or "cuda". Raises Failed, once all others are trained and stored, where
    the loss or the logits of a run are not finite, or a stack had no memory; ValueError for what is
    no `Run` or no device, OSError, at once, where the store cannot be written.
    """
    require(isinstance(progress, bool), "progress", progress, "False, True")
    where = choose_device(device)
    fits = isinstance(runs, Iterable) and getattr(runs, "ndim", 1) != 0  # no lone number
    require(fits, "runs", runs, "ginv.Run objects in a list")
    given: dict[Run, None] = {}
    for count, run in enumerate(runs):
        require(isinstance(run, Run), "run", run, "a ginv.Run")
        require(count < MOST_RUNS, "runs", runs, f"at most {MOST_RUNS} of them")  # or endless
        given[run] = None
    wanted = list(given)
    trained = {run: loaded for run in wanted if (loaded := load_run(run))}
    if trained and progress:
        store.say(f"{len(trained)} of {len(wanted)} runs are in the store: loaded, not trained")
    failed: dict[Run, Exception] = {}
    with threads_kept() as cores:
        training = _Training(wanted, where, cores, progress)
        while missing := [run for run in wanted if run not in trained and run not in failed]:
            for part in training.train_side_by_side(missing):
                trained.update((result.run, result) for result in part.trained)
                failed.update(part.failed)
            if others := [run for run in missing if run not in trained and run not in failed]:
                training.wait(others)
    if training.began:
        checkpoints.stored(where.type)  # removes what a killed process left
    results = {run: trained[run] for run in wanted if run in trained}
    if failed:
        raise Failed(failed, [*results.values()]) from next(iter(failed.values()))
    return results


class Failed(RuntimeError):
    """Runs that could not be trained, each with why; `trained` are all others."""

    def __init__(self, failed: dict[Run, Exception], trained: list[TrainedRun]) -> None:
        texts = {run: " ".join(str(error).split()) for run, error in failed.items()}
        self.failed = {run: t if str(run) in t else f"{t}, of {run}" for run, t in texts.items()}
        self.trained = trained
        why, count = "; ".join(self.failed.values()), len(failed) + len(trained)
        super().__init__(f"{len(failed)} of {count} runs failed, others are in the store: {why}")


def load_run(run: Run) -> TrainedRun | None:
    """A run from the store, or None."""
    with plain_torch():
        model = run.model(Generator())  # and not torch's own, which is the caller's
    if (stored := store.load(run.specification, model.state_dict())) is None:
        return None
    model.load_state_dict(stored[0])
    return TrainedRun(run, model.requires_grad_(False), stored[1])


def stacks(
    runs: list[Run], largest: int, kept: Sequence[Checkpoint] = ()
) -> Iterator[tuple[list[Run], Checkpoint | None]]:
    """Runs that train together, and where they go on.

    Those of a checkpoint first: what was a stack stays one.
    """
    for checkpoint in kept:
        if stack := [run for run in runs if run.specification in checkpoint.runs]:
            yield stack, checkpoint
            runs = [run for run in runs if run not in stack]
    alike = defaultdict(list)
    for run in runs:
        alike[shared_by_stack(run)].append(run)
    for stack in alike.values():
        yield from ((stack[i : i + largest], None) for i in range(0, len(stack), largest))


@dataclass
class _Part:
    """What became of a stack; the runs that another process has are in neither."""

    trained: list[TrainedRun]
    failed: dict[Run, Exception]


class _Training:
    """Stacks side by side, each on cores of its own.

    That is faster than one on all: the cores need not wait for each other after every product. On
    how many must not hang on what is missing, or an interrupted training might not end in the same
    bits.
    """

    def __init__(self, wanted: list[Run], device: torch.device, cores: int, progress: bool) -> None:
        self.device, self.progress, self.stop = device, progress, Event()
        self.largest, self.told, self.began = LARGEST_STACK[device.type], 0, False
        self.cores = cores if device.type == "cpu" else 1
        self.workers = max(1, min(self.cores, len([*stacks(wanted, self.largest)])))

    def train_side_by_side(self, missing: list[Run]) -> Iterator[_Part]:
        """The stacks as they are done, the longest first: the short ones fill the gaps.

        Ctrl-C ends all, and so does a store that cannot be written. A run that fails ends none.
        """
        if not self.began and self.progress:
            self._say_how_long(missing)
        self.began = True
        for run in missing:  # cached from here on: the threads need not read it again
            load_dataset(run.dataset, run.split_seed)
        parts = [*stacks(missing, self.largest, checkpoints.stored(self.device.type))]
        parts.sort(key=lambda part: -len(part[0]) * costs.training_operations(part[0][0]))
        with ThreadPoolExecutor(self.workers) as executor:
            try:
                futures = [executor.submit(self._train_part, *part) for part in parts]
                for done in as_completed(futures):
                    yield done.result()
            except BaseException:
                self.stop.set()
                executor.shutdown(wait=False, cancel_futures=True)
                raise

    def _say_how_long(self, missing: list[Run]) -> None:
        """Where that is a minute or more, and what would be faster."""
        operations = sum(map(costs.training_operations, missing))
        if (minutes := costs.minutes(operations, self.device)) >= 1:
            faster = "; a GPU is faster" if self.device.type == "cpu" else ""
            runs = f"{len(missing)} run{'s' * (len(missing) > 1)} to train"
            store.say(f"{runs}: about {minutes:.0f} min here{faster}")

    def wait(self, others: list[Run]) -> None:
        """Until another process has trained one of these, or has given one up."""
        if len(others) != self.told and self.progress:
            store.say(f"{len(others)} runs are trained by another process: waiting for them")
        self.told = len(others)
        specifications = [run.specification for run in others]
        while all(map(store.is_claimed, specifications)):
            time.sleep(1)

    def _train_part(self, stack: list[Run], checkpoint: Checkpoint | None) -> _Part:
        """What no other process trains of a stack."""
        if self.device.type == "cpu":
            torch.set_num_threads(self.cores // self.workers)  # of this thread alone
        with store.claim([run.specification for run in stack]) as ours:
            claimed = [run for run, mine in zip(stack, ours, strict=True) if mine]
            # Another process may have been faster
            found = {run: loaded for run in claimed if (loaded := load_run(run))}
            missing = [run for run in claimed if run not in found]
            part = self._train_and_store(missing, checkpoint) if missing else _Part([], {})
        return _Part([*found.values(), *part.trained], part.failed)

    def _train_and_store(self, runs: list[Run], checkpoint: Checkpoint | None) -> _Part:
        """From a checkpoint that has these runs, and perhaps others, which need it too."""
        specifications = [run.specification for run in runs]
        own = checkpoint if checkpoint and checkpoint.runs == specifications else None
        keep = Keeper(runs, self.device.type, own)
        try:
            results = train_stack(
                runs,
                device=self.device,
                progress=self.progress,
                stop=self.stop,
                start=checkpoint.state(specifications) if checkpoint else None,
                keep=keep,
            )
            part = _Part(results, {})
        except Diverged as error:
            each = {run: Diverged({run: epoch}, []) for run, epoch in error.failed.items()}
            part = _Part(error.trained, dict(each))
        except OSError:
            raise
        except Exception as error:
            part = _Part([], dict.fromkeys(runs, error))
        for result in part.trained:
            store.save(result.run.specification, result.model.state_dict(), result.record)
        keep.remove()
        return part
