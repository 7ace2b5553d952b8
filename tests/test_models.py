import pytest
import torch

from ginv import MLP, Rotations, Translations


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("group", [None, Rotations(4), Translations(3)])
def test_the_paper_s_230k_parameters(group):
    assert parameters(MLP(group)) == 233_225


@pytest.mark.parametrize("group", [Rotations(4), Translations(3), Translations(12)], ids=lambda group: group.name)
def test_weight_tied_network_is_invariant_and_the_plain_one_is_not(group, generator):
    x = torch.randn(32, 1, 36, 36, generator=generator, dtype=torch.float64)
    tied, plain = MLP(group, generator=generator).double(), MLP(generator=generator).double()
    for g in group.elements:
        assert (tied(group.act(g, x)) - tied(x)).abs().max() < 1e-12, f"{group.name}: {g}"
    assert (plain(group.act(1, x)) - plain(x)).abs().max() > 1e-3


def test_tied_to_the_trivial_group_is_the_plain_network(generator):
    x = torch.randn(8, 1, 36, 36, generator=generator)
    tied, plain = MLP(Rotations(1)), MLP(generator=generator)
    tied.load_state_dict(plain.state_dict())
    torch.testing.assert_close(tied(x), plain(x))


def test_initialisation_is_pytorch_s_own(generator):
    ours, theirs = MLP(generator=generator).state_dict(), MLP().state_dict()
    for name, value in ours.items():
        if value.numel() > 10_000:
            assert value.std().item() == pytest.approx(theirs[name].std().item(), rel=0.02)
            assert value.abs().max().item() == pytest.approx(theirs[name].abs().max().item(), rel=0.01)


@pytest.mark.parametrize("group", [None, Rotations(4)], ids=["plain", "tied"])
def test_weights_are_initialised_without_a_generator_too(group):
    torch.use_deterministic_algorithms(True)  # fills memory that nobody has initialised with NaN
    try:
        model = MLP(group)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
