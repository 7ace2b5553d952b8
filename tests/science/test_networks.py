from functools import partial

import pytest
import torch
from torch import nn

from ginv import (
    MLP,
    Colours,
    Ensemble,
    Rotations,
    Translations,
    WeightTiedLinear,
    orbit_logits,
    relative_logit_invariance,
    symmetrise,
)
from ginv.networks import small_convnet


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("group", [None, Rotations(4), Translations(3)])
def test_the_paper_s_230k_parameters(group):
    assert parameters(MLP(group)) == 233_225


@pytest.mark.parametrize(
    "group", [Rotations(4), Translations(3), Translations(12)], ids=lambda group: group.name
)
def test_weight_tied_network_is_invariant_and_the_plain_one_is_not(group, generator):
    x = torch.randn(32, 1, 36, 36, generator=generator, dtype=torch.float64)
    tied, plain = MLP(group, generator=generator).double(), MLP(generator=generator).double()
    for g in group.elements:
        assert (tied(group.act(g, x)) - tied(x)).abs().max() < 1e-12, f"{group.name}: {g}"
    assert (plain(group.act(1, x)) - plain(x)).abs().max() > 1e-3


@pytest.mark.parametrize("group", [Rotations(1), Colours(1)], ids=lambda group: group.name)
def test_tied_to_the_trivial_group_is_the_plain_network(group, generator):
    x = torch.randn(8, 1, 36, 36, generator=generator)
    tied, plain = MLP(group), MLP(generator=generator)
    tied.load_state_dict(plain.state_dict())
    torch.testing.assert_close(tied(x), plain(x))


def test_initialisation_is_pytorch_s_own(generator):
    ours, theirs = MLP(generator=generator).state_dict(), MLP().state_dict()
    for name, value in ours.items():
        if value.numel() > 10_000:
            assert value.std().item() == pytest.approx(theirs[name].std().item(), rel=0.02)
            assert value.abs().max().item() == pytest.approx(
                theirs[name].abs().max().item(), rel=0.01
            )


@pytest.mark.parametrize(
    "initialisation, reference",
    [
        ("glorot", nn.init.xavier_uniform_),
        ("he", partial(nn.init.kaiming_uniform_, nonlinearity="relu")),
    ],
)
def test_glorot_s_and_he_s_weights_are_torch_s(initialisation, reference, generator):
    ours, theirs = MLP(initialisation=initialisation, generator=generator), MLP()
    for layer in (layer for layer in theirs.modules() if isinstance(layer, nn.Linear)):
        reference(layer.weight, generator=generator)
    for (name, value), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if name.endswith("weight"):
            assert value.abs().max().item() == pytest.approx(other.abs().max().item(), rel=0.02)


def test_he_s_weights_keep_the_size_of_a_signal(generator):
    """A ReLU takes half of it away, and a variance of 2 / inputs makes up for that; PyTorch's own
    is 6 times less.
    """
    x = torch.randn(64, 1, 36, 36, generator=generator)
    size = {}
    for initialisation in ("he", "pytorch"):
        model = MLP(initialisation=initialisation, generator=generator)
        size[initialisation] = model.hidden[:-1](model.features(x)).square().mean()
    assert 1 < size["he"] < 4 and size["pytorch"] < 0.1


@pytest.mark.parametrize("group", [None, Rotations(4)], ids=["plain", "tied"])
def test_weights_are_initialised_without_a_generator_too(group):
    torch.use_deterministic_algorithms(True)  # fills memory that nobody has initialised with NaN
    try:
        model = MLP(group)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


class TestSmallConvnet:
    def test_all_its_weights_come_from_the_generator(self):
        """And none from, nor into, PyTorch's own."""
        before = torch.get_rng_state()
        first, again, other = (
            small_convnet(torch.Generator().manual_seed(seed)).state_dict() for seed in (0, 0, 1)
        )
        assert torch.equal(torch.get_rng_state(), before)
        for name, value in first.items():
            assert torch.equal(value, again[name]), name
            assert torch.equal(value, other[name]) == (value.ndim < 2), name  # norms and biases

    def test_its_weights_keep_the_size_of_a_signal(self, generator):
        """He's: a variance of 2 / inputs."""
        for layer in small_convnet(generator).modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                inputs = layer.weight[0].numel()
                assert layer.weight.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=0.1)
                assert layer.bias.count_nonzero() == 0

    def test_it_can_be_made_invariant(self, generator):
        group = Rotations(4)
        images = torch.randn(8, 1, 36, 36, generator=generator, dtype=torch.float64)
        model = small_convnet(generator).double()
        assert relative_logit_invariance(orbit_logits(model, images, group)).min() > 1e-3
        symmetrise(model, group)
        logits = orbit_logits(model, images, group)
        assert relative_logit_invariance(logits).max() < 1e-9 and logits[0].std(0).min() > 1e-3

    def test_it_has_as_many_outputs_as_classes(self, generator):
        images = torch.randn(2, 1, 36, 36, generator=generator)
        assert small_convnet(generator)(images).shape == (2, 9)
        assert small_convnet(generator, classes=4)(images).shape == (2, 4)


def test_an_ensemble_is_the_mean_of_its_members(generator):
    images = torch.randn(5, 1, 36, 36, generator=generator)
    members = [MLP(generator=generator), MLP(Rotations(4), width=16, generator=generator)]
    members.append(small_convnet(generator))
    mean = sum(member(images) for member in members) / 3
    ensemble = Ensemble(members)
    torch.testing.assert_close(ensemble(images), mean)
    torch.testing.assert_close(Ensemble(members[:1])(images), members[0](images))
    assert parameters(ensemble) == sum(map(parameters, members))  # they move to a device with it


def test_a_weight_tied_layer_by_itself_has_the_weights_of_a_linear_one(generator):
    """From PyTorch's generator, or another, which is then the only one that it draws from."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tied, linear = WeightTiedLinear(Rotations(4), 6, 6, 64), nn.Linear(36, 64)
        for name in ("weight", "bias"):
            sizes = [getattr(layer, name).abs().max().item() for layer in (tied, linear)]
            assert sizes == pytest.approx([1 / 6, 1 / 6], rel=0.1)
        before = torch.get_rng_state()
        one, other = (
            WeightTiedLinear(Rotations(4), 6, 6, 64, generator=torch.Generator().manual_seed(1))
            for _ in range(2)
        )
        MLP(Rotations(4), generator=generator)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)
