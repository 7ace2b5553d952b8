"""What a thread finds of a network that another looks at, and what both leave behind."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Generator, nn

from ginv import Averaged, Rotations, measure
from ginv.machine import evaluating

R4 = Rotations(4)
IMAGES = torch.rand(6, 1, 6, 6, generator=Generator().manual_seed(0))


@pytest.fixture
def inner():
    """In training, where it would draw and count."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolution = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout()
        return nn.Sequential(*convolution, nn.Flatten(), nn.Linear(144, 3)).train()


def modes(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("first", ["the network", "its average"])
def test_a_network_and_its_average_are_measured_at_once(inner, first):
    """The one ends while the other is in its midst."""
    average = Averaged(inner, R4)
    order = (inner, average) if first == "the network" else (average, inner)
    looked, entered, ended = (threading.Event() for _ in range(3))
    options = dict(group=R4, saliency=False, progress=False)
    alone = [measure(each, IMAGES, **options).summary.LI for each in order]

    def short():
        looked.set()
        entered.wait(60)
        yield IMAGES

    def long():
        entered.set()
        yield IMAGES[:3]
        ended.wait(60)
        yield IMAGES[3:]

    def end_first():
        found = measure(order[0], short(), **options)
        ended.set()
        return found

    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(end_first)
        looked.wait(60)
        other = threads.submit(measure, order[1], long(), **options)
        found = [each.result().summary.LI for each in (one, other)]
    assert found == pytest.approx(alone, abs=1e-9)
    assert all(modes(inner)) and all(modes(average))


def test_networks_that_one_holds_later_are_put_back_with_it(inner):
    """Modules of two that were apart, until a third came that has both."""
    other = nn.Linear(3, 3).eval()
    with evaluating(inner):
        with evaluating(other):
            holder = nn.Sequential(inner, other).train()
            other.eval()
            outer = evaluating(holder)
            outer.__enter__()
        assert not any(modes(holder))
    assert not any(modes(holder))  # the third still looks
    outer.__exit__(None, None, None)
    assert holder.training and all(modes(inner)) and not other.training


@pytest.mark.parametrize("value", [1.0, torch.nan])
def test_a_buffer_whose_values_share_one_place_is_left_as_it_is(inner, value):
    inner.register_buffer("some", torch.full((1,), value).expand(5))
    before = inner.some
    measure(inner, IMAGES, group=R4, saliency=False, progress=False)
    assert inner.some is before


def test_buffers_that_a_forward_fills_or_makes_are_empty_again():
    class Filling(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(36, 3)
            self.register_buffer("mean", None)

        def forward(self, x):
            if self.mean is None:
                self.mean = x.mean()
                self.register_buffer("more", x.sum())
            return self.linear((x - self.mean).flatten(1))

    model = Filling()
    before = [*model.state_dict()]
    measure(model, IMAGES, group=R4, saliency=False, progress=False)
    assert [*model.state_dict()] == before and model._buffers == {"mean": None}
