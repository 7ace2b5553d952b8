from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ginv import MLP, Run
from ginv.runs import costs


@pytest.mark.parametrize("pixels", [36 * 36, 28 * 28])
@pytest.mark.parametrize(
    ("run", "views", "copies"),
    [
        (Run(), 1, 1),
        (Run("T3", "IR", nu=1.0), 2, 1),
        (Run("R4", "IR", nu=1.0, whole_orbit=True), 4, 1),
        (Run("R4", "WT"), 1, 4),
        (Run("T6", "WT", width=32, depth=2), 1, 6),
    ],
)
def test_training_operations_are_those_of_the_matrix_products(run, views, copies, pixels):
    """Against torch's own count, for one step of one image; of WT with the filter of every g
    written out.
    """
    run = replace(run, epochs=1, train_images=1)
    first = nn.Linear(pixels, run.width * copies)
    rest = MLP(width=run.width, depth=run.depth)
    with FlopCounterMode(display=False) as counter:
        responses = first(torch.zeros(views, pixels)).unflatten(1, (copies, run.width)).amax(1)
        rest.output(rest.hidden(responses)).sum().backward()
    with FlopCounterMode(display=False) as validation, torch.no_grad():
        responses = first(torch.zeros(2_000, pixels)).unflatten(1, (copies, run.width)).amax(1)
        rest.output(rest.hidden(responses))
    assert (
        costs.training_operations(run, pixels)
        == counter.get_total_flops() + validation.get_total_flops()
    )


def test_measurement_operations_are_those_of_the_matrix_products():
    """Against torch's own count: the first layer once there and once back, the others at each step
    of the path.
    """
    model, steps = MLP().requires_grad_(False), 50
    x = torch.zeros(8 * 3, 36 * 36, requires_grad=True)  # the orbits of 8 images
    with FlopCounterMode(display=False) as counter:
        z = model.features(x)
        model.output(model.hidden(z))
        path = z.detach().expand(steps, -1, -1).requires_grad_()
        model.output(model.hidden(path)).sum().backward()
        z.sum().backward()
    assert costs.measurement_operations(Run("T3"), 8, steps) == counter.get_total_flops()


def test_a_clock_that_stands_still_is_no_division_by_zero(monkeypatch):
    monkeypatch.setattr("ginv.runs.costs.time.perf_counter", lambda: 7.0)
    assert 0 < costs.minutes(1e12, torch.device("cpu")) < 1
