"""`train`: from the store where a run is there, trained once where it is not."""

import re
from contextlib import contextmanager
from threading import Event
from types import SimpleNamespace

import pytest
import torch

from ginv import Run, train
from ginv.runs import store
from ginv.runs.train import Failed, load_run
from ginv.stack import Stack, train_stack


def short(**changes):
    return Run(**{"epochs": 2, "train_images": 600, "batch_size": 128, **changes})


def test_a_stored_run_is_loaded_and_not_trained_again(monkeypatch):
    run = short(epochs=1)
    first = train([run], device="cpu", progress=False)[run]
    monkeypatch.setattr(
        "ginv.runs.train.train_stack", lambda *_, **__: pytest.fail("trained again")
    )
    again = train([run, run], device="cpu", progress=False)[run]
    assert again.record["validation_accuracy"] == first.record["validation_accuracy"]
    for name, value in first.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)
    assert load_run(short(epochs=1, seed=1)) is None


@pytest.fixture
def two_threads():
    """So that two stacks train side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_a_run_that_diverges_costs_no_other(two_threads, trainings):
    """Of its stack or of another: the error comes last, and a rerun trains only what failed."""
    lost = [
        short(learning_rate=1e30, epochs=3),
        short(method="IR", nu=1e19, seed=5, learning_rate=3.0),
    ]
    beside = short(method="IR", nu=1.0, seed=1)
    wanted = [lost[0], short(method="WT", epochs=2), lost[1], beside]
    for again in (False, True):
        trainings.clear()
        with pytest.raises(Failed) as error:
            train(wanted, device="cpu", progress=False)
        assert "\n" not in str(error.value) and all(str(run) in str(error.value) for run in lost)
        assert {result.run for result in error.value.trained} == set(wanted) - set(lost)
        assert all(load_run(run) for run in set(wanted) - set(lost))
        assert set(trainings) == set(lost if again else wanted)
    alone = train_stack([beside], device=torch.device("cpu"), progress=False)[0].model
    together = load_run(beside).model
    for one, other in zip(together.parameters(), alone.parameters(), strict=True):
        assert (one - other).norm() < 0.01 * other.norm()  # rounding; another seed is far off


ERRORS = [torch.OutOfMemoryError("no memory"), RuntimeError("no\nsuch layer"), IndexError("7")]


@pytest.mark.parametrize("reason", ERRORS, ids=repr)
def test_a_stack_that_fails_costs_no_other(two_threads, monkeypatch, reason):
    """Whatever the reason, which comes last, with the run; a rerun trains only what failed."""
    first, wide, last = short(epochs=1), short(width=16), short(method="WT", epochs=2)
    setting_up = Stack.__init__

    def begin(stack, runs, device):
        if wide in runs:
            raise reason
        setting_up(stack, runs, device)

    monkeypatch.setattr(Stack, "__init__", begin)
    line = (
        f"^1 of 3 runs failed, others are in the store: no such layer, of {re.escape(str(wide))}$"
    )
    line = line.replace("no such layer", " ".join(str(reason).split()))
    with pytest.raises(Failed, match=line) as error:
        train([wide, first, last], device="cpu", progress=False)
    assert error.value.__cause__ is reason and [*error.value.failed] == [wide]
    assert load_run(first) and load_run(last) and not load_run(wide)


def test_a_store_that_is_full_ends_the_others(two_threads, monkeypatch):
    """And does not wait for the one that began first: trained to its end, it would be stored."""
    first, long = short(epochs=1), short(method="WT", epochs=3_000)
    save = store.save

    def full(specification, *arguments):
        if specification == first.specification:
            raise OSError("the disk is full")
        save(specification, *arguments)

    monkeypatch.setattr(store, "save", full)
    with pytest.raises(OSError, match="the disk is full"):
        train([first, long], device="cpu", progress=False)
    assert load_run(long) is None


def test_what_is_queued_is_not_begun_once_it_is_stopped(two_threads, monkeypatch):
    """Forty stacks, and Ctrl-C in the first: no other is set up."""
    begun, setting_up = [], Stack.__init__

    def begin(stack, runs, device):
        begun.append(runs)
        setting_up(stack, runs, device)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Stack, "__init__", begin)
    monkeypatch.setattr(Stack, "train_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train([short(width=8 + i) for i in range(40)], device="cpu", progress=False)
    assert len(begun) <= 4


def test_a_stack_stops_within_its_epoch():
    stop, stack = Event(), Stack([short()], torch.device("cpu"))
    stop.set()
    before = stack.leaves["output.weight"].clone()
    with pytest.raises(InterruptedError, match=r"^stopped in epoch 1 of Run"):
        stack.train_epoch(0, stop)
    assert torch.equal(stack.leaves["output.weight"], before)


def test_to_wait_reads_nothing_of_what_others_keep(monkeypatch):
    """A process that waits for another's run looks whether it is done, and at nothing else."""
    run, waited, reads = short(epochs=1), [], []
    read = store._read
    monkeypatch.setattr(store, "_read", lambda folder: reads.append(folder) or read(folder))
    sleeping = SimpleNamespace(sleep=lambda _: waited.append(len(reads)))
    monkeypatch.setattr("ginv.runs.train.time", sleeping)  # other threads may sleep as they like
    monkeypatch.setattr(store, "is_claimed", lambda _: len(waited) < 5)
    claim = store.claim
    monkeypatch.setattr(
        store,
        "claim",
        lambda specifications: claim(specifications) if waited else _none(specifications),
    )
    assert [*train([run], device="cpu", progress=False)] == [run]
    assert len(waited) == 5 and len(set(waited)) == 1


@contextmanager
def _none(specifications):
    yield [False] * len(specifications)
