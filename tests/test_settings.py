import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ginv import MLP, Run, Settings, costs, tuning
from ginv.settings import announce


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"profile": "fast"}, "profile is 'fast'; allowed: paper, quick"),
        ({"group": "R8"}, "group is 'R8'; allowed: both, R4, T3"),
        ({"seeds": "0"}, "seeds is '0'; allowed: a list of integers from 0 up"),
        ({"seeds": [0, -1]}, "seeds is .*allowed"),
        ({"seeds": []}, "seeds is .*allowed"),
        ({"device": "tpu"}, "device is 'tpu'; allowed"),
    ],
)
def test_a_bad_parameter_is_refused_in_one_line(parameters, message):
    with pytest.raises(ValueError, match=message) as error:
        Settings(**parameters)
    assert "\n" not in str(error.value)


def test_the_paper_profile_is_table_1():
    settings = Settings()
    assert len(settings.runs()) == 2 * 3 * 4 and settings.test_images == 50_000
    assert {run.epochs for run in settings.runs()} == {300}
    assert Settings(group="T3", seeds=[1]).runs()[0] == Run("T3", "WT", 1)
    assert "quick" in Settings("quick").label


def test_a_measurement_is_stored(monkeypatch):
    settings = Settings("quick", "R4")
    run = Run(epochs=1, train_images=500)
    trained = tuning.train([run], device="cpu", progress=False)[run]
    first = settings.measure(trained)
    monkeypatch.setattr("ginv.settings.measure", lambda *_, **__: pytest.fail("measured again"))
    pd.testing.assert_frame_equal(settings.measure(trained).samples, first.samples)


def test_announce_counts_what_is_missing():
    assert announce("quick").startswith("6 of 6 runs are missing")


def test_training_operations_are_those_of_the_matrix_products():
    """Against torch's own count, for one step of one image."""
    run = Run(epochs=1, train_images=1)
    with FlopCounterMode(display=False) as counter:
        MLP()(torch.zeros(1, 1, 36, 36)).sum().backward()
    validation = 2_000 * 2 * sum(p.numel() for p in MLP().parameters() if p.ndim == 2)
    assert costs.training_operations(run) - validation == counter.get_total_flops()


@pytest.mark.parametrize(("values", "chosen"), [([0.5, 0.96, 0.94, 0.97], 1.0), ([0.1, 0.2, 0.3, 0.4], None)])
def test_the_smallest_nu_that_reaches_the_target(values, chosen):
    table = pd.DataFrame({"nu": [0.1, 1.0, 10.0, 100.0], "SI": values})
    assert tuning.smallest_nu(table) == chosen
