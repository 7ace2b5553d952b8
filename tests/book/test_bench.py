"""Ours and the reference of each item do the same work, and the table says what was measured."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import bench
import naive_measure
import naive_training
import pandas as pd
import pytest
import torch
from execute import chapters
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

import ginv
from ginv import MLP, Rotations, Run, load_dataset
from ginv.runs import costs
from ginv.runs.train import load_run
from ginv.stack import Stack, train_stack

ROOT = Path(__file__).parents[2]
TINY = bench.Size(
    repeats=1,
    product=64,
    epochs=(1, 2),
    few_epochs=(1, 2),
    train_images=300,
    seeds=2,
    images=8,
    memory=300,
    growing_seeds=(1, 2),
    growing_images=(8, 16),
    growing_groups=("R1", "R2", "T1", "T2"),
    precision=(1, 16),
)


def test_every_item_runs(monkeypatch):
    monkeypatch.setattr(bench, "GROUPS", ("R4",))  # saves half of the time
    slow = [item for item in bench.slow_items(TINY) if not item.name.startswith("book")]
    items = [*bench.items(TINY), *slow]
    timings = bench.time_items(items, TINY.repeats)
    measured = {item.name for item in items if not item.reason}
    assert set(timings.item) == measured and len(timings) == sum(not item.reason for item in items)
    table = bench.summarise(items, timings).set_index("item")
    assert set(table.index[table.ratio.notna()]) == measured
    gpu = table[table.index.str.contains("CUDA")]
    assert len(gpu) == 5
    assert ((gpu.met == "not measured: no GPU here") != torch.cuda.is_available()).all()


def test_the_chapters_of_the_paper_are_in_the_book():
    known = [Path(page).name for page in chapters(ROOT)]
    assert [name for name in known if name in bench.CHAPTERS.split()] == bench.CHAPTERS.split()


@pytest.mark.parametrize("group", ["R4", "T3"])
@pytest.mark.parametrize("method", ["DA", "IR", "WT"])
def test_the_products_alone_are_all_that_are_counted(method, group, monkeypatch):
    """Of the inside of the images; of two stacks, and once more for memory."""

    class Here:  # operations are counted in one thread
        map = staticmethod(map)

    monkeypatch.setattr(bench, "threads_of_one_core", lambda _: Here)
    run = Run(group, method, nu=1.0 * (method == "IR"), train_images=512, epochs=1)
    with FlopCounterMode(display=False) as counter:
        bench.products_seconds(run, 1)
    inside = Stack([run], bench.CPU).border.inside_shape
    counted = costs.training_operations(run, math.prod(inside))
    assert counter.get_total_flops() == pytest.approx(4 * counted, rel=1e-6)
    if (method, group) == ("DA", "R4"):
        with FlopCounterMode(display=False) as counter:
            bench.measuring_products_seconds(64)
        # The last layer is left out, and the first one's slope is in
        counted = costs.measurement_operations(run, 64)
        assert counter.get_total_flops() == pytest.approx(2 * counted, rel=0.02)


def test_training_items_train_what_they_say(monkeypatch):
    """Two lengths of so many seeds; what does not depend on the length cancels."""
    seen = []
    clock = iter([0.0, 10.0 + 2 * 3.0, 20.0, 30.0 + 6 * 3.0])  # 10 s to start, 3 s an epoch
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(clock))
    assert bench.epoch_seconds(seen.append, Run(group="T3"), 4, (2, 6)) == pytest.approx(3.0 / 4)
    assert [len(stack) for stack in seen] == [4, 4]
    assert [{run.epochs for run in stack} for stack in seen] == [{2}, {6}]
    assert [run.seed for run in seen[0]] == [0, 1, 2, 3]
    assert {run.group for run in seen[0]} == {"T3"}


def test_training_is_not_loaded_from_a_store():
    run = Run(epochs=1, train_images=300)
    bench.train([run])
    assert load_run(run) is None


@pytest.mark.parametrize("group", [None, Rotations(4)], ids=["MLP", "WT"])
def test_plain_metrics_are_those_of_measure(group, generator):
    test = load_dataset().test.head(40)
    model = MLP(group, generator=generator)
    ours = ginv.measure(model, test.images, test.labels, Rotations(4), progress=False).samples
    plain = naive_measure.measure(model, test.images, test.labels, batch_size=16)
    ours = ours.drop(columns="SI_distinct")  # which follows from SI
    assert set(plain) == set(ours)
    near = dict(check_like=True, check_dtype=False, rtol=2e-3, atol=1e-6)
    pd.testing.assert_frame_equal(plain, ours, **near)


@pytest.mark.parametrize("method", ["DA", "WT"])
def test_maps_are_captums(method):
    """Of a network that was trained: the target of the bench."""
    model, test = bench.some_model(method), load_dataset().test.head(64)
    ours, reference = bench.our_maps(model, test), bench.captum_maps(model, test)
    assert (ours - reference).norm() < 1e-3 * reference.norm()


def test_a_plain_step_is_ours():
    """One batch, from the same weights and with the same images, moves them to the same place."""
    run, cpu = Run(epochs=1, train_images=96, batch_size=96), torch.device("cpu")
    stack, data = Stack([run], cpu), load_dataset().train.head(96)
    model = copy.deepcopy(stack.models[0])
    initial = copy.deepcopy(model.state_dict())
    rows, labels = stack._shuffled()
    batch = Rotations(4).orbit(data.images).flatten(0, 1)[rows[0, 0]], labels[0]
    optimiser = torch.optim.Adam(model.parameters(), lr=run.learning_rate)
    naive_training.train_epoch(model, optimiser, [batch])
    ours = train_stack([run], device=cpu, progress=False)[0].model.state_dict()
    for name, value in model.state_dict().items():
        assert (value - ours[name]).norm() < 1e-3 * (value - initial[name]).norm(), name


def test_the_plain_loop_learns_from_the_same_images():
    training, validation = bench.plain_digits()
    images = torch.stack([training[i][0] for i in range(20)])
    orbits = Rotations(4).orbit(load_dataset().train.images[:20])
    distance = (orbits - images).abs().amax((2, 3, 4))  # from each element of the orbit
    assert (distance.amin(0) < 1e-5).all() and len(set(distance.argmin(0).tolist())) == 4
    accuracy = naive_training.train(MLP(), training, validation, epochs=2)
    assert 0.5 < accuracy < 0.95
    labels = next(iter(DataLoader(training, batch_size=20)))[1]
    assert labels.equal(load_dataset().train.labels[:20])


def test_reduced_precision_reduces_the_products_alone():
    run = Run(epochs=1, train_images=300)
    (float32,), (reduced,) = (bench.train_one_stack(way, [run]) for way in ("float32", "bfloat16"))
    before, after = (way.model.state_dict()["output.weight"] for way in (float32, reduced))
    assert after.dtype == torch.float32 and not torch.allclose(before, after, rtol=1e-5)
    torch.testing.assert_close(before, after, atol=0.02, rtol=0)


def table_of(*items, repeats=3):
    return bench.summarise(items, bench.time_items(items, repeats)).set_index("item")


def test_the_table():
    reference = iter([8.0, 40.0, 9.0])
    items = [
        bench.Item("fast", lambda: 2.0, lambda: next(reference), 4),
        bench.Item("slow", lambda: 3.0, lambda: 8.0, 4),
        bench.Item("open", lambda: 2.0, lambda: 1.0),
        bench.Item("absent", None, target=3, reason="not measured: no GPU here"),
        *[bench.Item("square", lambda n=n: n**2.0, n=n) for n in (1, 2, 4)],
        *[bench.Item("line", lambda n=n: 1.0 + n, n=n) for n in (1, 2, 4)],
    ]
    table = table_of(*items)
    assert table.ratio["fast"] == 4.5  # a median
    reached = {"fast": "yes", "slow": "no", "open": "", "square": "no", "line": "yes"}
    assert table.met.to_dict() == {**reached, "absent": "not measured: no GPU here"}
    assert table.ratio["square"] == 0.5 and table.ratio["line"] == 2 * 3 / 5


def test_ours_and_the_reference_take_turns_in_going_first():
    calls = []

    def noted(side):
        return lambda: calls.append(side) or 1.0

    bench.time_items([bench.Item("turns", noted("ours"), noted("reference"))], 2)
    assert calls == ["ours", "reference", "reference", "ours"]


def test_slow_items_are_kept_as_they_were(tmp_path, monkeypatch):
    """The bench runs them with --full alone; in the table they come last, in a fixed order."""
    quick = [bench.Item("quick", lambda: 2.0, lambda: 8.0, 3)]
    monkeypatch.setattr(bench, "items", lambda size: quick)
    slow = [
        bench.Item("slow", lambda: 1.0, lambda: 5.0, 4, repeats=1),
        bench.Item("not", None, reason="absent"),
    ]
    monkeypatch.setattr(bench, "slow_items", lambda size: slow)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["bench.py", "--folder", str(tmp_path), *arguments])
        bench.main()
        timings = pd.read_csv(tmp_path / "timings.csv")
        return pd.read_csv(tmp_path / "bench.csv", index_col="item"), timings.item.value_counts()

    table, timings = run()
    assert list(table.index) == ["quick", "slow", "not"]
    assert dict(timings) == {"quick": bench.Size().repeats}
    assert list(table.met) == ["yes"] + 2 * ["not measured: make bench FULL=1"]
    table, timings = run("--full")
    assert list(table.index) == ["quick", "slow", "not"] and timings["slow"] == 1
    assert list(table.met) == ["yes", "yes", "absent"]
    slow[0] = replace(slow[0], ours=lambda: pytest.fail("run again"))
    again, timings = run()
    pd.testing.assert_frame_equal(again, table)
    assert timings["slow"] == 1


def test_the_committed_table_is_that_of_the_bench():
    table = pd.read_csv(ROOT / "book/results/bench.csv")
    assert list(table) == ["item", "ours", "reference", "ratio", "target", "met"]
    size = bench.Size()
    items = {item.name: item for item in [*bench.slow_items(size), *bench.items(size)]}
    assert set(table.item) == set(items), "make bench"
    timings = pd.read_csv(ROOT / "book/results/timings.csv")
    measured = table[table.ratio.notna()]
    known = [replace(items[name], reason="") for name in measured.item]
    again = bench.summarise(known, timings).set_index("item")
    for row in measured.itertuples():
        assert row.ratio == pytest.approx(again.ratio[row.item], rel=2e-3)
        assert ("" if pd.isna(row.met) else row.met) == again.met[row.item]
