import pytest
import torch
from torch import nn

from ginv import MLP, group_named, jacobian, largest_singular_value


def test_jacobian_of_a_linear_model_is_its_weight(generator):
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4, dtype=torch.float64))
    images = torch.randn(3, 1, 6, 6, dtype=torch.float64, generator=generator)
    weight = model[1].weight.detach()
    assert torch.equal(jacobian(model, images), weight.expand(3, -1, -1))
    expected = torch.linalg.svdvals(weight)[0].expand(3)
    torch.testing.assert_close(largest_singular_value(model, images), expected)


@pytest.mark.parametrize("group", [None, "R4"])
def test_jacobian_is_the_finite_difference(group, generator):
    model = MLP(group and group_named(group), generator=generator).double()
    x, direction = torch.randn(2, 5, 1, 36, 36, dtype=torch.float64, generator=generator)
    change = (model(x + 1e-6 * direction) - model(x - 1e-6 * direction)) / 2e-6
    predicted = (jacobian(model, x) @ direction.flatten(1)[..., None]).squeeze(-1)
    torch.testing.assert_close(predicted, change, rtol=1e-5, atol=1e-7)


def test_no_direction_moves_the_logits_more_than_sigma_max(generator):
    model = MLP(generator=generator).double()
    x = torch.randn(4, 1, 36, 36, dtype=torch.float64, generator=generator)
    sigma, (_, s, v) = largest_singular_value(model, x), torch.linalg.svd(jacobian(model, x), full_matrices=False)
    torch.testing.assert_close(sigma, s[:, 0])
    top = v[:, 0].view_as(x)
    reached = ((model(x + 1e-6 * top) - model(x)) / 1e-6).norm(dim=1)
    torch.testing.assert_close(reached, sigma, rtol=1e-4, atol=0)
    random = nn.functional.normalize(torch.randn(4, 1296, dtype=torch.float64, generator=generator)).view_as(x)
    assert (((model(x + 1e-6 * random) - model(x)) / 1e-6).norm(dim=1) < sigma).all()


def test_jacobian_of_an_invariant_network_turns_with_the_image(generator):
    """f(gx) = f(x) gives J(gx) G = J(x): the same singular values in every orientation."""
    rotations = group_named("R4")
    model = MLP(rotations, generator=generator).double()
    x = torch.randn(3, 1, 36, 36, dtype=torch.float64, generator=generator)
    upright = jacobian(model, x).unflatten(2, (36, 36))
    for g in rotations.elements:
        turned = jacobian(model, rotations.act(g, x)).unflatten(2, (36, 36))
        torch.testing.assert_close(rotations.act(rotations.inverse(g), turned), upright)
