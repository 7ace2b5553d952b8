"""`train`: from the store where a run is there, trained once where it is not."""

import pytest
import torch

from ginv import Run, train
from ginv.runs.train import load_run


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


def test_an_error_in_one_stack_ends_the_others():
    """And does not wait for the one that began first: trained to its end, it would be stored."""
    diverging, long = short(learning_rate=1e30, epochs=3), short(method="WT", epochs=3_000)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # so that two stacks train side by side
    try:
        with pytest.raises(FloatingPointError):
            train([diverging, long], device="cpu", progress=False)
    finally:
        torch.set_num_threads(threads)
    assert load_run(long) is None
