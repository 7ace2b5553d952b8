"""Many runs: a grid says what it says, whoever trains it; here, on the workers of a Dask, through a store elsewhere."""

import io
import itertools
import math
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread

import fsspec
import pandas as pd
import pytest
import torch
from processes import start, work_for

import ginv.sweep
import ginv.training
from ginv import MLP, Rotations, Run, distribution_invariance, load_dataset, store
from ginv.remote import pull, push
from ginv.sweep import COLUMNS, DRIFT, Grid, evaluate, evaluation, partners, read_grid, sweep

TINY = dict(width=16, depth=2, epochs=2, train_images=200, batch_size=100)
RUNS = tuple(Run(method="IR", nu=nu, seed=seed, **TINY) for nu in (1.0, 10.0) for seed in (0, 1))
GRID = Grid({"IR": RUNS, "WT": (Run("T3", "WT", **TINY),)}, images=40)

LONG = 20  # epochs
TOO_MANY = [*range(401)]


def at_length(runs):
    return tuple(replace(run, epochs=LONG) for run in runs)


def written(tmp_path, text):
    (tmp_path / "grid.yaml").write_text(text)
    return tmp_path / "grid.yaml"


class TestGrid:
    def test_lists_are_all_of_their_values_in_turn(self, tmp_path):
        text = """
        split: test
        images: 70
        recipes:
          DA: {method: DA, group: [R4, T3], seed: [0, 3]}
          IR: [{method: IR, group: R4, nu: [1, 10]}, {method: IR, group: T3, nu: 0.5, dataset: FashionMNIST}]
        """
        grid = read_grid(written(tmp_path, text))
        assert grid.recipes == {
            "DA": tuple(Run(group, seed=seed) for group in ("R4", "T3") for seed in (0, 3)),
            "IR": (Run("R4", "IR", nu=1), Run("R4", "IR", nu=10), Run("T3", "IR", nu=0.5, dataset="FashionMNIST")),
        }
        assert (grid.split, grid.images) == ("test", 70)

    def test_every_field_of_a_run_can_be_swept(self, tmp_path):
        values = {"group": ["R2", "T3"], "seed": [1, 2], "dataset": ["MNIST", "FashionMNIST"], "epochs": [1, 2]}
        values |= {"learning_rate": [0.1, 0.01], "width": [8, 9], "depth": [1, 2], "pooling": ["max", "mean"]}
        runs = read_grid(written(tmp_path, f"recipes: {{a: {dict(values, method='WT')}}}")).runs
        assert len(set(runs)) == math.prod(map(len, values.values())) == 2 ** len(values)
        for name, chosen in values.items():
            assert {getattr(run, name) for run in runs} == set(chosen)

    def test_a_run_of_two_recipes_is_one(self, tmp_path):
        text = "recipes: {a: &all {method: WT, seed: [0, 1]}, b: {<<: *all, seed: [1, 2]}}"
        grid = read_grid(written(tmp_path, text))
        assert grid.runs == [Run(method="WT", seed=seed) for seed in (0, 1, 2)]

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("", "FILE is None; allowed: a table with recipes"),
            ("[1, 2]", "FILE is [1, 2]; allowed: a table with recipes"),
            ("recipes: {}", "recipes is {}; allowed: a table of at least one"),
            ("recipes: {a: }", "recipe a is None; allowed: a table of fields of ginv.Run, or a list of them"),
            ("recipes: {a: []}", "recipe a is []; allowed: a table of fields of ginv.Run, or a list of them"),
            ("recipes: {a: {}}\nimage: 3", "key is 'image'; allowed: recipes, split, images"),
            ("recipes: {a: {}}\nimages: 2001", "images is 2001; allowed: 1 to 2000"),
            ("recipes: {a: {}}\nsplit: [test]", "split is ['test']; allowed: train, validation, test"),
            ("recipes: {a: {sede: 1}}", "field of recipe a is 'sede'; allowed: group, method, seed, nu"),
            ("recipes: {a: {seed: [0, -1]}}", "seed is -1; allowed: integers from 0"),
            ("recipes: {a: {seed: [[0]]}}", "seed is [0]; allowed: integers from 0"),
            ("recipes: {a: {seed: []}}", "number of runs of recipe a is 0; allowed: 1 to 100000 in a table"),
            (f"recipes: {{a: {{seed: {TOO_MANY}, width: {TOO_MANY[1:]}}}}}", "number of runs of recipe a is 160400"),
            ("recipes: {a: {seed: [0, 1, 0]}}", "recipe a has a run twice: Run(group='R4'"),
            ("recipes: {a: [{seed: 1}, {seed: [0, 1]}]}", "recipe a has a run twice: Run(group='R4'"),
            ("recipes: {a: {seed: 0}, a: {seed: 1}}", "FILE is no YAML: a stands twice in the table"),
            ("recipes: {a: {seed: 0, seed: 1}}", "FILE is no YAML: seed stands twice in the table"),
            ("recipes: {a: {seed: !!python/object/apply:os.getpid []}}", "FILE is no YAML: could not determine"),
            ("!!python/object:ginv.Run {seed: 1}", "FILE is no YAML: could not determine"),
            ("recipes: {a: {seed: 0}", "FILE is no YAML: while parsing"),
        ],
    )  # fmt: skip
    def test_refuses_in_a_line(self, text, line, tmp_path):
        file = written(tmp_path, text)
        with pytest.raises(ValueError, match=f"^{re.escape(line.replace('FILE', str(file)))}[^\n]*$"):
            read_grid(file)


def test_partners_are_of_the_same_class_and_differ_while_they_can():
    labels, others = torch.tensor([0, 1, 0, 0, 2]), torch.tensor([2, 0, 1, 0, 2])
    chosen = partners(labels, others)
    assert (others[chosen] == labels).all()
    assert chosen.tolist() == [1, 2, 3, 1, 0]


def test_drift_is_measured_on_blends_of_one_class():
    model = MLP(width=8, depth=1, generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    values = evaluate(model, "R4", "validation", 30)
    digits, garments = (load_dataset(name).validation for name in ("MNIST", "FashionMNIST"))
    seen, blends = dict.fromkeys(range(9), 0), []
    for image, label in zip(digits.images[:30], digits.labels[:30].tolist(), strict=True):
        of_class = [i for i, other in enumerate(garments.labels.tolist()) if other == label]
        blends.append((1 - DRIFT) * image + DRIFT * garments.images[of_class[seen[label]]])
        seen[label] += 1
    logits = torch.stack([model(x) for x in Rotations(4).orbit(torch.stack(blends))])
    assert values["DI_under_drift"] == pytest.approx(distribution_invariance(logits).mean().item(), rel=1e-4)
    assert values["sigma_max_over_scale"] == pytest.approx(values["sigma_max"] / values["logit_norm"])
    tied = MLP(Rotations(4), width=8, depth=1, generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    assert evaluate(tied, "R4", "validation", 30)["DI_under_drift"] < 1e-6 < values["DI_under_drift"]


@pytest.fixture
def trainings(monkeypatch):
    """The runs that were trained in this process."""
    trained, function = [], ginv.training.train_stack

    def noted(runs, **options):
        trained.extend(runs)
        return function(runs, **options)

    monkeypatch.setattr(ginv.training, "train_stack", noted)
    return trained


def assert_tidy(table):
    """A row for each recipe, run and metric, once, and nothing missing."""
    key = ["group", "recipe", "nu", "seed", "metric"]
    assert list(table.columns) == COLUMNS and not table.duplicated(key).any() and table.notna().all(axis=None)
    runs = {(run.group, recipe, run.nu, run.seed) for recipe, runs in GRID.recipes.items() for run in runs}
    assert set(table[key[:-1]].itertuples(index=False, name=None)) == runs
    assert len(table) == len(runs) * table.metric.nunique()


def assert_close(table, other):
    pd.testing.assert_frame_equal(table, other, rtol=1e-3, atol=1e-5)


def test_a_sweep_goes_on_where_it_was(trainings, monkeypatch):
    monkeypatch.setattr(ginv.sweep, "evaluate", lambda *_, **__: trainings.clear() or {"accuracy": 1.0, "SI": 0.5})
    sweep(replace(GRID, recipes={"some": RUNS[1:3]}))
    assert_tidy(table := sweep(GRID))
    monkeypatch.delattr(ginv.sweep, "evaluate")
    trainings.clear()
    pd.testing.assert_frame_equal(sweep(GRID), table)
    assert trainings == []


def test_the_table_says_what_differs(monkeypatch):
    monkeypatch.setattr(ginv.sweep, "evaluate", lambda *_, **__: {"accuracy": 1.0})
    runs = tuple(Run(**TINY | {"width": width, "depth": depth}) for width in (4, 5) for depth in (1, 2))
    table = sweep(Grid({"DA": runs, "other epochs": (Run(**TINY | {"epochs": 1}),)}))
    assert list(table.columns) == ["group", "recipe", "nu", "seed", "width", "depth", "metric", "value"]
    assert table.groupby("recipe").size().to_dict() == {"DA": 4, "other epochs": 1}


class TestScheduler:
    @pytest.fixture
    def scheduler(self):
        """A scheduler of the command line, on loopback."""
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
        process = subprocess.Popen([*command, "--no-dashboard"], stderr=subprocess.PIPE, text=True)
        addresses = (re.search(r"tcp://127\.0\.0\.1:\d+", line) for line in process.stderr)
        yield next(filter(None, addresses))[0]
        process.kill()
        process.communicate()

    @pytest.fixture
    def workers(self, scheduler, tmp_path):
        """Three, whose epochs take a tenth of a second."""
        workers = {name: start(work_for, scheduler, tmp_path, 0.1, name) for name in "abc"}
        yield workers
        for worker in workers.values():
            worker.kill()
            worker.join()

    def test_a_worker_is_killed_and_every_run_is_trained_once(self, scheduler, workers, tmp_path, monkeypatch, capfd):
        epochs, killed = tmp_path / "epochs", []

        def kill_in_mid_run():
            while not epochs.exists() or len(lines := epochs.read_text().splitlines()) < 4:
                time.sleep(0.01)
            killed.append(lines[-1])
            workers[lines[-1]].kill()

        grid = replace(GRID, recipes={name: at_length(runs) for name, runs in GRID.recipes.items()})
        monkeypatch.setenv("GINV_RUNS", str(tmp_path / "unused"))
        thread = Thread(target=kill_in_mid_run, daemon=True)
        thread.start()
        table = sweep(grid, scheduler=scheduler)
        assert "2/2" in capfd.readouterr().err  # of the bar
        thread.join()
        workers[killed[0]].join()
        assert [worker.exitcode for worker in workers.values() if not worker.is_alive()] == [-9]
        assert sorted((tmp_path / "trained").read_text().splitlines()) == sorted(map(str, grid.runs))
        assert 2 * LONG <= len(epochs.read_text().splitlines()) <= 2 * LONG + 1  # it went on from its checkpoint
        assert (tmp_path / "failed").exists()  # the first task, which was tried again
        assert not (tmp_path / "unused").exists()
        assert_tidy(table)

        assert sweep(grid, scheduler=scheduler).equals(table)
        assert len((tmp_path / "trained").read_text().splitlines()) == len(grid.runs)
        monkeypatch.setenv("GINV_RUNS", str(tmp_path / "runs"))
        assert sweep(grid).equals(table)
        monkeypatch.setenv("GINV_RUNS", str(tmp_path / "alone"))
        assert_close(sweep(grid), table)

    def test_what_fails_is_named_at_the_end_and_the_rest_is_done(self, scheduler, workers, tmp_path, monkeypatch):
        diverging = tuple(replace(run, learning_rate=1e30) for run in RUNS[:1])
        with pytest.raises(RuntimeError, match=r"^1 of 2 stacks failed; [^\n]*FloatingPointError[^\n]*1e\+30[^\n]*$"):
            sweep(replace(GRID, recipes={"high": diverging, "WT": GRID.recipes["WT"]}), scheduler=scheduler)
        monkeypatch.setenv("GINV_RUNS", str(tmp_path / "runs"))
        assert store.contains(evaluation(GRID.recipes["WT"][0], GRID.split, GRID.images))


class TestRemote:
    """A folder, and what lives in memory alone, by their URLs."""

    @pytest.fixture(params=["file", "memory"])
    def url(self, request, tmp_path):
        yield f"{request.param}://{tmp_path}/remote"
        fsspec.filesystem("memory").store.clear()

    @pytest.fixture
    def machine(self, tmp_path, monkeypatch):
        """Makes this another machine: one whose own store is empty."""
        names = itertools.count()
        return lambda: monkeypatch.setenv("GINV_RUNS", str(tmp_path / f"machine{next(names)}"))

    def test_what_one_machine_trained_another_has(self, url, machine, trainings):
        machine()
        table = sweep(GRID, remote=url)
        assert sorted(map(str, trainings)) == sorted(map(str, GRID.runs))
        trainings.clear()
        machine()
        assert sweep(GRID, remote=url).equals(table)
        assert trainings == []
        assert all(store.contains(run.specification) for run in GRID.runs)

    def test_the_sums_come_last(self, url, machine, monkeypatch, capfd):
        """A machine that dies while it writes leaves nothing that counts, wherever it was."""
        files, _ = fsspec.core.url_to_fs(url)
        specification, whole = {"of": "a record"}, type(files).pipe_file
        store.save(specification, {"x": torch.ones(3)}, {})

        def dies(self, path, value, **options):
            if not left:
                raise InterruptedError
            left.pop()
            whole(self, path, value, **options)

        for count in range(len(store.FILES)):
            left = [1] * count
            with monkeypatch.context() as patch, pytest.raises(InterruptedError):
                patch.setattr(type(files), "pipe_file", dies)
                push(url, [specification])
            machine()
            pull(url, [specification])
            assert not store.contains(specification)
            assert capfd.readouterr().err == ""  # nor is it taken for damage
            store.save(specification, {"x": torch.ones(3)}, {})
        push(url, [specification])
        machine()
        pull(url, [specification])
        assert store.load(specification)[0]["x"].tolist() == [1, 1, 1]

    @pytest.mark.parametrize("file", store.FILES)
    @pytest.mark.parametrize("damage", ["cut", "altered", "gone"])
    def test_a_damaged_record_is_named_and_made_again(self, file, damage, url, machine, trainings, capfd):
        machine()
        table = sweep(grid := replace(GRID, recipes={"IR": RUNS[:2]}), remote=url)
        files, folder = fsspec.core.url_to_fs(url)
        name = store.record_name(RUNS[0].specification)
        content = files.cat_file(path := f"{folder}/{name}/{file}")
        if damage == "gone":
            files.rm_file(path)
        else:
            files.pipe_file(path, content[:-9] if damage == "cut" else bytes([content[0] ^ 1]) + content[1:])
        trainings.clear()
        machine()
        capfd.readouterr()
        assert_close(sweep(grid, remote=url), table)
        assert trainings == [RUNS[0]]
        named = f"{name} at {url} cannot be used, " in capfd.readouterr().err
        assert named != (file == store.SUMS and damage == "gone")  # without sums it does not count
        trainings.clear()
        machine()
        sweep(grid, remote=url)
        assert trainings == []

    def test_a_record_of_another_name_is_not_taken(self, url, machine):
        """Nor anything from outside the folder: names are hashes of what is asked for, and never read from there."""
        files, folder = fsspec.core.url_to_fs(url)
        store.save({"of": "one"}, {}, {})
        push(url, [{"of": "one"}])
        one, other = (store.record_name({"of": name}) for name in ("one", "other"))
        files.mv(f"{folder}/{one}", f"{folder}/{other}", recursive=True)
        machine()
        pull(url, [{"of": "other"}])
        assert not store.contains({"of": "other"})
        assert {path.name for path in store.store_folder().iterdir()} <= {".lock"}

    def test_teachers_come_along(self, url, machine, trainings):
        run = Run(method="IR", nu=1.0, teacher=True, **TINY)
        machine()
        sweep(Grid({"IR": (run,)}, images=20), remote=url)
        assert trainings == [run.teacher_run, run]
        machine()
        pull(url, [run.teacher_run.specification])
        assert store.contains(run.teacher_run.specification)


def command(tmp_path, monkeypatch, *arguments):
    """What `python -m ginv.sweep` does on a tiny grid."""
    file = written(tmp_path, f"images: 20\nrecipes: {{DA: {TINY | {'epochs': 1}}}}")
    monkeypatch.setattr(sys, "argv", ["sweep", str(file), *arguments])
    ginv.sweep.main()


def test_the_command_prints_the_table_or_writes_it(tmp_path, monkeypatch, capsys):
    command(tmp_path, monkeypatch)
    out = capsys.readouterr().out
    assert list(pd.read_csv(io.StringIO(out)).columns) == COLUMNS
    command(tmp_path, monkeypatch, str(tmp_path / "table.csv"))
    assert capsys.readouterr().out == "" and (tmp_path / "table.csv").read_text() == out


def test_without_dask_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SystemExit, match=r'^a scheduler needs Dask: pip install "ginv\[sweep\]"$'):
        command(tmp_path, monkeypatch, "--scheduler", "tcp://127.0.0.1:8786")
    command(tmp_path, monkeypatch)


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def test_a_scheduler_that_is_not_there_is_named_within_seconds(monkeypatch):
    assert ginv.sweep.SECONDS_TO_CONNECT <= 5
    monkeypatch.setattr(ginv.sweep, "SECONDS_TO_CONNECT", 1)
    began, address = time.monotonic(), f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(OSError, match=f"^no scheduler at {address}: [^\n]*$"):
        sweep(GRID, scheduler=address)
    assert time.monotonic() - began < 3
    assert not Path(os.environ["GINV_RUNS"]).exists()


BAD_SCHEDULERS = ["", "localhost:8786", "tcp://127.0.0.1", "tcp://a:b", "http://127.0.0.1:8786", "tcp://a b:1", 8786]


@pytest.mark.parametrize("address", BAD_SCHEDULERS)
def test_bad_schedulers(address):
    line = f"scheduler is {address!r}; allowed: an address such as tcp://127.0.0.1:8786"
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        sweep(GRID, scheduler=address)


BAD_STORES = {
    "": "store is ''; allowed: a URL that fsspec knows, such as s3://bucket/runs",
    "s3:/bucket": "store is 's3:/bucket'; allowed: a URL",
    7: "store is 7; allowed: a URL",
    "nonsense://runs": "the store nonsense://runs cannot be written: Protocol not known: nonsense",
    f"file://{__file__}/runs": f"the store file://{__file__}/runs cannot be written: ",
}


@pytest.mark.parametrize("url", BAD_STORES)
def test_bad_stores(url):
    with pytest.raises((ValueError, OSError), match=f"^{re.escape(BAD_STORES[url])}[^\n]*$"):
        sweep(GRID, remote=url)
    assert not Path(os.environ["GINV_RUNS"]).exists()
