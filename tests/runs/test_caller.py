"""What the caller has set is the caller's: it changes no result, and is left as it was."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import pytest
import torch

from ginv import MLP, Rotations, Run, data, load_dataset, machine, measure, train
from ginv.data import _normalised
from ginv.runs import store
from ginv.runs.measured import measured

RUN = Run(method="IR", nu=1.0, symmetric_start=True, epochs=1, train_images=300, width=16, depth=2)


@contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def one_thread_asked_for():
    """In a thread that ends: torch would give as many to each new one."""
    before = torch.get_num_threads()
    thread = threading.Thread(target=torch.set_num_threads, args=(1,))
    thread.start()
    thread.join()
    try:
        yield
    finally:
        torch.set_num_threads(before)


SETTINGS = {
    "default dtype": default_dtype,
    "default device": default_device,
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "threads": one_thread_asked_for,
    "deterministic": lambda: torch.random.fork_rng(),
}


def some():
    return load_dataset().test.head(40)


def of_training():
    return [*train([RUN], device="cpu", progress=False)[RUN].model.state_dict().values()]


def of_stored_measurement():
    trained = train([RUN], device="cpu", progress=False)[RUN]
    return [torch.from_numpy(measured(trained, "test", 40, device="cpu").samples.to_numpy().copy())]


@cache
def network():
    return MLP(Rotations(4), generator=torch.Generator().manual_seed(0))


def of_measuring():
    test = some()
    measurement = measure(network(), test.images, test.labels, Rotations(4), progress=False)
    return [torch.from_numpy(measurement.samples.to_numpy().copy())]


def of_data():
    _normalised.cache_clear()
    data = load_dataset("MNIST", 5)
    assert not data.train.images.is_inference()
    return [data.train.images[:5], data.test.labels[:5]]


RESULTS = [of_training, of_stored_measurement, of_measuring, of_data]


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_of_the_caller_changes_nothing(setting, result, monkeypatch, tmp_path):
    expected = result()
    monkeypatch.setenv("GINV_RUNS", str(tmp_path / "others"))
    with SETTINGS[setting]():
        found = result()
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, equal_nan=True)


def state():
    """All that torch keeps for a thread or for the process."""
    return [
        torch.get_default_dtype(),
        torch.empty(0).device,
        torch.get_num_threads(),
        ThreadPoolExecutor(1).submit(torch.get_num_threads).result(),  # of a new one
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_rng_state().tolist(),
    ]


@pytest.mark.parametrize("result", RESULTS)
def test_the_settings_are_left_as_they_were(result):
    before = state()
    result()
    assert state() == before
    result()  # from the store
    assert state() == before


def test_a_setting_costs_no_stored_run(capsys):
    train([RUN], device="cpu", progress=False)
    names = sorted(path.name for path in store.store_folder().iterdir())
    with default_dtype():
        train([RUN], device="cpu", progress=False)
    assert sorted(path.name for path in store.store_folder().iterdir()) == names
    assert "set-aside" not in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_measures():
    """The threads of its parent are not there any more."""
    of_measuring()
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
    else:
        signal.alarm(300)  # ends it where it hangs
        of_measuring()
        os._exit(0)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_a_thread_is_inside_waits_for_nobody():
    """The thread that holds a lock is not in the child, to give it back."""
    with data._LOADING, machine._SWITCHING:
        child = os.fork()
        if child == 0:
            locks = data._LOADING, machine._SWITCHING
            os._exit(not all(lock.acquire(timeout=5) for lock in locks))
        assert os.waitpid(child, 0)[1] == 0


def test_threads_that_measure_one_model_share_its_mode():
    """The first puts it into evaluation mode, the last takes it back; BatchNorm learns nothing."""
    model = torch.nn.Sequential(
        torch.nn.BatchNorm2d(1), torch.nn.Flatten(), torch.nn.Linear(36 * 36, 9)
    ).train()
    test, before = some(), {name: v.clone() for name, v in model.state_dict().items()}

    def one(_):
        return measure(model, test.images, test.labels, Rotations(4), progress=False).summary

    expected = one(0)
    with ThreadPoolExecutor(4) as executor:
        for found in executor.map(one, range(12)):
            assert (found - expected).abs().max() < 1e-4
    assert all(module.training for module in model.modules())
    assert all(torch.equal(v, before[name]) for name, v in model.state_dict().items())


def test_one_copy_of_the_data_however_it_is_asked_for():
    _normalised.cache_clear()
    ways = [
        load_dataset(),
        load_dataset("MNIST"),
        load_dataset(name="MNIST"),
        load_dataset("MNIST", 0),
        load_dataset(split_seed=0, name="MNIST"),
    ]
    assert _normalised.cache_info().currsize == 1
    assert all(torch.equal(way.train.labels, ways[0].train.labels) for way in ways)


@pytest.mark.parametrize(
    "change",
    [
        lambda split: split.images.fill_(0),
        lambda split: split.images.numpy().fill(0),
        lambda split: split.images.data.zero_(),
        lambda split: split.labels.fill_(3),
    ],
    ids=["in place", "numpy", "data", "labels"],
)
def test_a_caller_changes_the_data_for_itself_alone(change):
    mine, expected = load_dataset().train, load_dataset().train.images[:50].clone()
    labels = load_dataset().train.labels.clone()
    change(mine)
    again = load_dataset().train
    assert torch.equal(again.images[:50], expected) and torch.equal(again.labels, labels)
    assert not (torch.equal(mine.images[:50], expected) and torch.equal(mine.labels, labels))
