"""Many runs elsewhere: on the workers of a Dask, and through a second store."""

import itertools
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread

import distributed
import fsspec
import pytest
import torch
from processes import start, work_for
from tiny import GRID, RUNS, assert_close, assert_tidy

from ginv.runs import cluster, store
from ginv.runs.cluster import pull, push, redacted
from ginv.runs.grid import run_grid
from ginv.runs.measured import named
from ginv.runs.train import load_run

LONG = 20  # epochs


def at_length(runs):
    return tuple(replace(run, epochs=LONG) for run in runs)


class TestScheduler:
    @pytest.fixture
    def scheduler(self, monkeypatch):
        """A scheduler of the command line, on loopback; it may answer as late as it likes."""
        monkeypatch.setattr(cluster, "SECONDS_TO_CONNECT", 600)
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", *options]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
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

    def test_a_worker_is_killed_and_every_run_is_trained_once(
        self, scheduler, workers, tmp_path, monkeypatch, capfd
    ):
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
        table = run_grid(grid, scheduler=scheduler)
        assert "2/2" in capfd.readouterr().err  # of the bar
        thread.join()
        workers[killed[0]].join()
        assert [worker.exitcode for worker in workers.values() if not worker.is_alive()] == [-9]
        trained = (tmp_path / "trained").read_text().splitlines()
        assert sorted(trained) == sorted(map(str, grid.runs))
        # It went on from its checkpoint
        assert 2 * LONG <= len(epochs.read_text().splitlines()) <= 2 * LONG + 1
        assert (tmp_path / "failed").exists()  # the first task, which was tried again
        assert not (tmp_path / "unused").exists()
        assert_tidy(table)

        assert run_grid(grid, scheduler=scheduler).equals(table)
        assert len((tmp_path / "trained").read_text().splitlines()) == len(grid.runs)
        monkeypatch.setenv("GINV_RUNS", str(tmp_path / "runs"))
        assert run_grid(grid).equals(table)
        monkeypatch.setenv("GINV_RUNS", str(tmp_path / "alone"))
        assert_close(run_grid(grid), table)

    def test_what_fails_is_named_at_the_end_and_the_rest_is_done(
        self, scheduler, workers, tmp_path, monkeypatch
    ):
        diverging = tuple(replace(run, learning_rate=1e30) for run in RUNS[:1])
        grid = replace(GRID, recipes={"high": diverging, "WT": GRID.recipes["WT"]})
        line = r"1 of 2 runs failed, the others [^\n]*: the loss or the logits[^\n]*1e\+30[^\n]*"
        with pytest.raises(RuntimeError, match=f"^{line}$"):
            run_grid(grid, scheduler=scheduler)
        monkeypatch.setenv("GINV_RUNS", str(tmp_path / "runs"))
        done = load_run(GRID.recipes["WT"][0])
        for what in ("measurement", "robustness"):
            assert store.contains(named(what, done, GRID.split, GRID.images))

    @pytest.mark.parametrize(
        ("before", "reason"),
        [
            ("sys.modules['ginv'] = None", "No module named 'ginv"),
            ("sys.modules['torch'] = None", "import of torch halted"),
            ("import ginv.runs.store as s; s.VERSIONS['record'] = 99", "this worker's ginv stores"),
        ],
    )
    def test_a_worker_with_another_ginv_or_none_says_so(self, before, reason, scheduler):
        """And nobody waits for ever."""
        program = f"import sys; {before}; from distributed.cli.dask_worker import main; main()"
        command = [sys.executable, "-c", program, scheduler, "--no-nanny", "--no-dashboard"]
        worker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            with pytest.raises(RuntimeError, match=f"^5 of 5 runs failed[^\\n]*({reason})[^\\n]*$"):
                run_grid(GRID, scheduler=scheduler)
        finally:
            worker.kill()
            worker.wait()


class TestRemote:
    """A folder, and what lives in memory alone, by their URLs."""

    @pytest.fixture(params=["file", "memory"])
    def url(self, request, tmp_path, monkeypatch):
        monkeypatch.setattr(cluster, "SECONDS_TO_SETTLE", 0.1)
        yield f"{request.param}://{tmp_path}/remote"
        fsspec.filesystem("memory").store.clear()

    @pytest.fixture
    def machine(self, tmp_path, monkeypatch):
        """Makes this another machine: one whose own store is empty."""
        names = itertools.count()
        return lambda: monkeypatch.setenv("GINV_RUNS", str(tmp_path / f"machine{next(names)}"))

    def test_what_one_machine_trained_another_has(self, url, machine, trainings):
        machine()
        table = run_grid(GRID, remote=url)
        assert sorted(map(str, trainings)) == sorted(map(str, GRID.runs))
        trainings.clear()
        machine()
        assert run_grid(GRID, remote=url).equals(table)
        assert trainings == []
        assert all(store.contains(run.specification) for run in GRID.runs)

    def test_the_sums_come_last(self, url, machine, monkeypatch, capfd):
        """A machine that dies while it writes leaves nothing that counts, wherever it was."""
        files, _ = fsspec.core.url_to_fs(url)
        specification, whole = {"of": "a record"}, type(files).pipe_file
        store.save(specification, {"x": torch.ones(3)}, {})

        def dies(self, path, value, **options):
            if not left:
                raise KeyboardInterrupt
            left.pop()
            whole(self, path, value, **options)

        for count in range(len(store.FILES)):
            left = [1] * count
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
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
    def test_a_damaged_record_is_named_and_made_again(
        self, file, damage, url, machine, trainings, capfd
    ):
        machine()
        table = run_grid(grid := replace(GRID, recipes={"IR": RUNS[:2]}), remote=url)
        files, folder = fsspec.core.url_to_fs(url)
        name = store.record_name(RUNS[0].specification)
        content = files.cat_file(path := f"{folder}/{name}/{file}")
        if damage == "gone":
            files.rm_file(path)
        else:
            altered = bytes([content[0] ^ 1]) + content[1:]
            files.pipe_file(path, content[:-9] if damage == "cut" else altered)
        trainings.clear()
        machine()
        capfd.readouterr()
        assert_close(run_grid(grid, remote=url), table)
        assert trainings == [RUNS[0]]
        named = f"{name} at {url} cannot be used, " in capfd.readouterr().err
        assert named != (file == store.SUMS and damage == "gone")  # without sums it does not count
        trainings.clear()
        machine()
        run_grid(grid, remote=url)
        assert trainings == []

    @pytest.mark.parametrize("place", range(1, 6))
    def test_two_that_write_a_record_at_once_leave_it_whole(
        self, place, url, machine, monkeypatch, capfd
    ):
        """Whose seconds differ: at any file of the one, the other writes all of it."""
        files, _ = fsspec.core.url_to_fs(url)
        specification, write = {"of": "a record"}, type(files).pipe_file
        machine()
        store.save(specification, {"x": torch.ones(3)}, {"seconds": 1.0})
        mine = store.store_folder()
        machine()
        store.save(specification, {"x": torch.ones(3)}, {"seconds": 2.0})
        written = []

        def meanwhile(self, path, value, **options):
            written.append(path)
            if len(written) == place:
                with monkeypatch.context() as there:
                    there.setenv("GINV_RUNS", str(mine))
                    push(url, [specification])
            write(self, path, value, **options)

        with monkeypatch.context() as patch:
            patch.setattr(type(files), "pipe_file", meanwhile)
            push(url, [specification])
        machine()
        pull(url, [specification])
        assert store.load(specification)[1]["seconds"] in (1.0, 2.0)
        assert capfd.readouterr().err == ""

    def test_one_that_is_being_written_is_waited_for(self, url, machine, monkeypatch, capfd):
        files, folder = fsspec.core.url_to_fs(url)
        specification = {"of": "a record"}
        store.save(specification, {"x": torch.ones(3)}, {})
        push(url, [specification])
        path = f"{folder}/{store.record_name(specification)}/{store.RECORD}"
        whole = files.cat_file(path)
        files.pipe_file(path, b"{}")
        machine()
        monkeypatch.setattr(cluster.time, "sleep", lambda _: files.pipe_file(path, whole))
        pull(url, [specification])
        assert store.load(specification) and capfd.readouterr().err == ""

    @pytest.mark.parametrize(
        "error", [ValueError("no\ntoken"), KeyError("token"), TypeError("x"), OSError("away")]
    )
    @pytest.mark.parametrize("name", ["cat_file", "exists", "pipe_file"])
    def test_what_fails_on_the_way_is_no_damage(self, name, error, url, machine, monkeypatch):
        """Each file system has errors of its own; the record stays."""
        files, folder = fsspec.core.url_to_fs(url)
        specification = {"of": "a record"}
        store.save(specification, {"x": torch.ones(3)}, {})
        push(url, [specification])
        if name != "pipe_file":
            machine()

        def fails(*_, **__):
            raise error

        line = f"^the store {re.escape(url)} cannot be (read|written): [^\n]+$"
        with monkeypatch.context() as patch, pytest.raises(OSError, match=line):
            patch.setattr(type(files), name, fails)
            pull(url, [specification])
            store.save({"of": "another"}, {}, {})
            push(url, [{"of": "another"}])
        assert not files.glob(f"{folder}/set-aside*")
        machine()
        pull(url, [specification])
        assert store.load(specification)

    def test_damage_on_the_way_is_not_made_right(self, url, machine, monkeypatch, capfd):
        specification = {"of": "a record"}
        store.save(specification, {"x": torch.ones(3)}, {})
        file = store.record_folder(specification) / store.TENSORS
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        monkeypatch.setattr(cluster.time, "sleep", lambda _: None)
        push(url, [specification])
        machine()
        pull(url, [specification])
        assert not store.contains(specification)
        assert "cannot be used, " in capfd.readouterr().err

    def test_a_network_that_came_with_the_clone_is_sent(self, url, machine, monkeypatch, tmp_path):
        """It is in no store of this machine."""
        monkeypatch.setenv("GINV_FRESH", "0")
        specification = RUNS[0].specification
        machine()
        store.save(specification, {"x": torch.ones(3)}, {})
        monkeypatch.setattr(store, "SHIPPED", store.store_folder())
        machine()
        push(url, [specification])
        monkeypatch.setattr(store, "SHIPPED", tmp_path / "none")
        machine()
        pull(url, [specification])
        assert store.load(specification)[0]["x"].tolist() == [1, 1, 1]

    def test_a_record_of_another_name_is_not_taken(self, url, machine):
        """Nor anything from outside the folder: names are hashes of what is asked for, and never
        read from there.
        """
        files, folder = fsspec.core.url_to_fs(url)
        store.save({"of": "one"}, {}, {})
        push(url, [{"of": "one"}])
        one, other = (store.record_name({"of": name}) for name in ("one", "other"))
        files.mv(f"{folder}/{one}", f"{folder}/{other}", recursive=True)
        machine()
        pull(url, [{"of": "other"}])
        assert not store.contains({"of": "other"})
        assert {path.name for path in store.store_folder().iterdir()} <= {".lock", ".locks"}


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def test_a_scheduler_that_is_not_there_is_named(monkeypatch):
    """After the seconds that it has to answer: five, in this test one."""
    given, client = [], distributed.Client

    def impatient(address, *, timeout, **options):
        given.append(timeout)
        return client(address, timeout=1, **options)

    monkeypatch.setattr(distributed, "Client", impatient)
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(OSError, match=f"^no scheduler at {address}: [^\n]*$"):
        run_grid(GRID, scheduler=address)
    assert given == [cluster.SECONDS_TO_CONNECT] == [5]
    assert not Path(os.environ["GINV_RUNS"]).exists()


BAD_SCHEDULERS = [
    "",
    "localhost:8786",
    "tcp://127.0.0.1",
    "tcp://a:b",
    "http://127.0.0.1:8786",
    "tcp://a b:1",
    8786,
]


@pytest.mark.parametrize("address", BAD_SCHEDULERS)
def test_bad_schedulers(address):
    line = f"scheduler is {address!r}; allowed: an address such as tcp://127.0.0.1:8786"
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        run_grid(GRID, scheduler=address)


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
        run_grid(GRID, remote=url)
    assert not Path(os.environ["GINV_RUNS"]).exists()


def test_a_group_that_acts_otherwise_on_the_worker_is_refused(monkeypatch):
    run = replace(RUNS[0], group="R4")
    strange = run.specification | {"action": "0" * 16}
    with pytest.raises(ValueError, match="^the group R4 acts otherwise on this machine$"):
        cluster.work([strange], "validation", 10)


SECRETS = {
    "s3://KEY:s3cr3t@bucket/runs": ["s3cr3t", "KEY"],
    "s3:/KEY:s3cr3t@bucket/runs": ["s3cr3t", "KEY"],
    "s3//KEY:s3cr3t@bucket/runs": ["s3cr3t", "KEY"],
    "KEY:s3cr3t@bucket": ["s3cr3t", "KEY"],
    "s3://KEY:wJal/s3cr3t@bucket/runs": ["s3cr3t", "wJal", "KEY"],
    "ftp://u:a/s3cr3t@host/runs": ["s3cr3t"],
    "ftp://user:s3%20cr3t@host/runs": ["s3 cr3t", "s3%20cr3t"],
    "http://host/runs?token=s3cr3t": ["s3cr3t"],
    "http://host/runs#token=s3cr3t": ["s3cr3t"],
    "http://host/runs?a=s3cr3t#b=other": ["s3cr3t", "other"],
    "tcp://user:s3cr3t@host:8786": ["s3cr3t"],
}


@pytest.mark.parametrize("url", SECRETS)
def test_no_secret_of_a_url_is_told(url):
    """Neither as it stands there nor as it is meant, whole or in parts."""
    said = redacted(f"{url} is no place; {' and '.join(SECRETS[url])} neither", url)
    assert not any(secret in said for secret in SECRETS[url])
    assert said.endswith("neither")


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/runs",
        "file:///a/b",
        "memory://x",
        "C:/runs",
        "s3://@bucket",
        "s3://u@b",
        "",
        None,
    ],
)
def test_a_url_without_a_secret_is_told(url):
    assert redacted(f"{url} is no place", url) == f"{url} is no place"
