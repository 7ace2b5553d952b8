"""A training that is interrupted goes on where it was, and ends in the same bits."""

import itertools
import os
import random
import signal
import time
from dataclasses import replace

import pytest
import torch
from processes import start, train_in

from ginv import Run, train
from ginv.runs import checkpoints, store
from ginv.stack import Stack, train_stack

EPOCHS = 12
SHORT = dict(epochs=EPOCHS, train_images=300, batch_size=64, width=16, depth=2)
# All that differs from step to step
RECIPE = dict(schedule="cosine", all_views=True, whole_orbit=True)
RUNS = [
    *(Run(seed=seed, **SHORT) for seed in range(3)),
    *(Run("T3", "IR", seed, nu, **SHORT) for seed in range(3) for nu in (1.0, 10.0)),  # two stacks
    *(Run("T3", "IR", seed, 1.0, **SHORT, **RECIPE) for seed in range(2)),
]
WORK = {  # runs, the most in a stack, and how many stacks that makes
    "four stacks": (RUNS, 4, 4),
    "forty in a stack": (
        [Run("R4", "IR", seed, nu, **SHORT) for seed in range(4) for nu in range(1, 11)],
        64,
        1,
    ),
}


def stored(folder, runs):
    """Every weight, and the history, of the runs in a store."""
    os.environ["GINV_RUNS"] = str(folder / "runs")
    found = [store.load(run.specification) for run in runs]
    assert all(found)
    return [(tensors, record["validation_accuracy"]) for tensors, record in found]


def assert_same(folder, expected, runs=RUNS):
    """To the last bit, and nothing else in the store."""
    for (tensors, history), (other, other_history) in zip(
        stored(folder, runs), expected, strict=True
    ):
        assert history == other_history
        assert all(torch.equal(tensors[name], other[name]) for name in tensors | other)
    assert {len(path.name) for path in (folder / "runs").glob("[!.]*")} == {16}
    with store._lock():  # whoever writes next removes what one that was killed has left
        pass
    assert not [*(folder / "runs").glob(".writing*")]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Where the runs of each kind of work are, and how long they took."""
    start(int).join()  # the fork server has loaded all by then
    done = {}
    for work, (runs, largest, _) in WORK.items():
        folder, began = tmp_path_factory.mktemp("uninterrupted"), time.monotonic()
        process = start(train_in, folder, runs, largest)
        process.join()
        assert process.exitcode == 0
        done[work] = folder, time.monotonic() - began
    return done


@pytest.fixture
def expected(uninterrupted, monkeypatch):
    monkeypatch.setenv("GINV_RUNS", "")  # so that what `stored` sets is undone
    return {work: stored(folder, WORK[work][0]) for work, (folder, _) in uninterrupted.items()}


@pytest.mark.parametrize(
    ("work", "number", "kills"),
    [
        ("four stacks", signal.SIGKILL, 20),
        ("forty in a stack", signal.SIGKILL, 6),
        ("four stacks", signal.SIGINT, 4),
    ],
    ids=["SIGKILL", "SIGKILL-forty", "Ctrl-C"],
)
def test_killed_at_random_moments(work, number, kills, tmp_path, uninterrupted, expected):
    moments, survived, trainings = random.Random(int(number)), 0, 0
    (runs, largest, stacks), seconds = WORK[work], uninterrupted[work][1]
    while survived < kills:
        trainings, here, code = trainings + 1, 0, None
        folder = tmp_path / str(trainings)
        while code != 0:
            process = start(train_in, folder, runs, largest)
            process.join(moments.uniform(0, seconds / 2) if survived < kills else None)
            allowed = {0}
            if process.is_alive():
                os.kill(process.pid, number)
                survived, here = survived + 1, here + 1
                allowed.add(-number if number == signal.SIGKILL else 1)
            process.join()
            code = process.exitcode
            assert code in allowed
        assert_same(folder, expected[work], runs)
        epochs = (folder / "epochs").read_text().count("epoch")
        assert EPOCHS * stacks <= epochs <= EPOCHS * stacks + here  # of each kill, an epoch at most
    assert survived == kills


def test_eight_processes_train_each_run_once(tmp_path, expected):
    processes = [start(train_in, tmp_path, RUNS) for _ in range(8)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted((tmp_path / "trained").read_text().splitlines()) == sorted(map(str, RUNS))
    assert_same(tmp_path, expected["four stacks"])


def test_eight_processes_of_which_six_are_killed(tmp_path, uninterrupted, expected):
    """What a dead process had claimed is trained by another, from where it was."""
    processes = [start(train_in, tmp_path, RUNS) for _ in range(8)]
    for process in processes[:6]:
        time.sleep(uninterrupted["four stacks"][1] / 8)
        process.kill()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes[6:]] == [0, 0]
    assert len(set((tmp_path / "trained").read_text().splitlines())) == len(RUNS)
    assert_same(tmp_path, expected["four stacks"])


class Stop(BaseException):
    """As Ctrl-C is, and no test runner takes it for its own."""


@pytest.fixture
def interrupt(monkeypatch):
    """Stops the training before its so-manieth epoch; counts epochs."""
    monkeypatch.setattr(checkpoints, "MOST_LOST", 0.0)
    shuffled = Stack._shuffled

    def at(last):
        count = []

        def counted(stack):
            count.append(1)
            if len(count) > last:
                raise Stop
            return shuffled(stack)

        monkeypatch.setattr(Stack, "_shuffled", counted)
        return count

    return at


def weights(trained):
    return [
        torch.cat([p.flatten() for p in result.model.parameters()]) for result in trained.values()
    ]


@pytest.mark.parametrize("runs", [RUNS[:3], RUNS[-2:]], ids=["DA", "recipe"])
def test_goes_on_in_the_same_bits(runs, interrupt):
    """What a random kill may miss: the recipe stopped in the middle."""
    interrupt(5)
    with pytest.raises(Stop):
        train(runs, device="cpu", progress=False)
    rest = interrupt(100)
    again = train(runs, device="cpu", progress=False)
    assert len(rest) == EPOCHS - 5
    at_once = train_stack(runs, device=torch.device("cpu"), progress=False)
    for a, b in zip(weights(again), weights({r.run: r for r in at_once}), strict=True):
        assert torch.equal(a, b)


def test_a_part_of_a_stack_goes_on_too(interrupt):
    """The others of the stack find their checkpoint where it was."""
    runs = RUNS[:3]
    interrupt(5)
    with pytest.raises(Stop):
        train(runs, device="cpu", progress=False)
    rest = interrupt(100)
    weights_apart = weights(train(runs[1:2], device="cpu", progress=False))
    assert len(rest) == EPOCHS - 5
    weights_apart += weights(train(runs[::2], device="cpu", progress=False))
    assert len(rest) == 2 * (EPOCHS - 5)
    together = train_stack([runs[i] for i in (1, 0, 2)], device=torch.device("cpu"), progress=False)
    for a, b in zip(weights_apart, weights({r.run: r for r in together}), strict=True):
        # One ReLU that rounding switches moves less, another seed far more
        assert (a - b).norm() < 0.01 * b.norm()


def test_between_two_records_nothing_is_trained_again(interrupt, monkeypatch):
    save, saved = store.save, []

    def failing(specification, *arguments):
        if "checkpoint" not in specification:
            saved.append(specification)
            if len(saved) == 2:
                raise Stop
        save(specification, *arguments)

    monkeypatch.setattr(store, "save", failing)
    interrupt(100)
    with pytest.raises(Stop):
        train(RUNS[:3], device="cpu", progress=False)
    assert [store.contains(run.specification) for run in RUNS[:3]] == [True, False, False]
    interrupt(0)
    again = train(RUNS[:3], device="cpu", progress=False)
    interrupt(100)
    at_once = train_stack(RUNS[:3], device=torch.device("cpu"), progress=False)
    for a, b in zip(weights(again), weights({r.run: r for r in at_once}), strict=True):
        assert torch.equal(a, b)


def test_a_damaged_checkpoint_is_set_aside_and_the_run_begins_again(interrupt, capsys):
    interrupt(5)
    with pytest.raises(Stop):
        train(RUNS[:1], device="cpu", progress=False)
    (folder,) = (store.store_folder() / store.CHECKPOINTS).glob("checkpoint-*")
    os.truncate(folder / store.TENSORS, 1000)
    epochs = interrupt(100)
    train(RUNS[:1], device="cpu", progress=False)
    assert len(epochs) == EPOCHS
    assert f"{folder} cannot be used, {store.TENSORS} differs" in capsys.readouterr().err


ODD = {
    "fewer runs": lambda tensors: {name: t[:1] if t.ndim else t for name, t in tensors.items()},
    "no generator": lambda tensors: {
        **tensors,
        "generators": torch.full_like(tensors["generators"], 255),
    },
    "not finite": lambda tensors: {
        name: t * torch.nan if "exp_avg" in name else t for name, t in tensors.items()
    },
}


@pytest.mark.parametrize("odd", ODD)
def test_a_checkpoint_that_holds_something_odd_costs_no_run(odd, interrupt):
    """Whose sums are right."""
    interrupt(5)
    with pytest.raises(Stop):
        train(RUNS[:2], device="cpu", progress=False)
    (found,) = checkpoints.stored("cpu")
    tensors, record = store.load(found.specification)
    store.remove(found.specification)
    store.save(found.specification, ODD[odd](tensors), {"seconds": record["seconds"]})
    epochs = interrupt(100)
    train(RUNS[:2], device="cpu", progress=False)
    assert len(epochs) == EPOCHS


def test_a_checkpoint_of_another_device_or_version_is_not_used(interrupt, monkeypatch):
    interrupt(5)
    with pytest.raises(Stop):
        train(RUNS[:1], device="cpu", progress=False)
    (found,) = checkpoints.stored("cpu")
    assert found.epoch == 5 and checkpoints.stored("cuda") == []
    monkeypatch.setitem(store.VERSIONS, "checkpoint", store.VERSIONS["checkpoint"] + 1)
    assert checkpoints.stored("cpu") == []


def test_forty_stacked_runs_lose_no_more_than_a_minute(monkeypatch):
    """With a clock by which an epoch takes seven seconds."""
    now, shuffled = [0.0], Stack._shuffled

    def seven_seconds(stack):
        now[0] += 7
        return shuffled(stack)

    monkeypatch.setattr(Stack, "_shuffled", seven_seconds)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    runs = [replace(run, epochs=20) for run in WORK["forty in a stack"][0]]
    keeper, kept = checkpoints.Keeper(runs, "cpu", None), []
    monkeypatch.setattr(store, "save", lambda name, _, record: kept.append((name, record)))
    train_stack(runs, device=torch.device("cpu"), progress=False, keep=keeper)
    times = [0, *(record["seconds"] for _, record in kept)]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert kept[-1][0]["checkpoint"] == 20 and 45 < max(gaps) <= checkpoints.MOST_LOST
