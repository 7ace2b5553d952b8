import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ginv import (
    MLP,
    Group,
    Rotations,
    Translations,
    accuracy,
    distribution_invariance,
    flip_rate,
    group_named,
    integrated_gradients,
    jacobian,
    jensen_shannon,
    kl_divergence,
    largest_singular_value,
    logit_error,
    logit_invariance,
    measure,
    orbit_logits,
    orbit_maps,
    relative_logit_invariance,
    saliency_invariance,
    saliency_map,
)


@pytest.fixture
def logits(generator):
    return torch.randn(4, 50, 9, generator=generator, dtype=torch.float64)


def pair_mean(measure_pair, orbit, distinct):
    pairs = [
        (a, b)
        for a, b in itertools.product(range(len(orbit)), repeat=2)
        if not (distinct and a == b)
    ]
    return torch.stack([measure_pair(orbit[a], orbit[b]) for a, b in pairs]).mean(0)


@pytest.mark.parametrize("distinct", [False, True])
@pytest.mark.parametrize(
    ("closed_form", "measure_pair"),
    [
        (logit_invariance, logit_error),
        (distribution_invariance, kl_divergence),
        (saliency_invariance, lambda a, b: F.cosine_similarity(a, b, dim=-1)),
    ],
)
def test_closed_forms_are_means_over_ordered_pairs(closed_form, measure_pair, distinct, logits):
    torch.testing.assert_close(
        closed_form(logits, distinct=distinct), pair_mean(measure_pair, logits, distinct)
    )


def test_values_worked_out_by_hand():
    logits = torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]]])
    assert logit_invariance(logits, distinct=True).item() == pytest.approx(2.0)  # |(2, 0)|^2 / 2
    # Half of the pairs are identity pairs
    assert logit_invariance(logits).item() == pytest.approx(1.0)
    p = 1 / (1 + math.exp(-2))  # softmax of (2, 0)
    there = -math.log(2) - (math.log(p) + math.log(1 - p)) / 2
    back = math.log(2) + p * math.log(p) + (1 - p) * math.log(1 - p)
    assert distribution_invariance(logits, distinct=True).item() == pytest.approx(
        (there + back) / 2
    )
    maps = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])
    assert saliency_invariance(maps, distinct=True).item() == pytest.approx(math.cos(math.pi / 4))
    assert accuracy(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), torch.tensor([0])).item() == 50


def test_distribution_does_not_see_a_shift_of_the_logits(logits, generator):
    shifted = logits[:1] + torch.randn(4, 50, 1, generator=generator, dtype=torch.float64)
    assert distribution_invariance(shifted).max() < 1e-12
    assert logit_invariance(shifted).min() > 1e-3


def test_companions_are_free_of_scale_and_shift(logits, generator):
    """A network that only shrinks its logits has a smaller LI and must not look more invariant."""
    shrunk = logits / 100 + torch.randn(4, 50, 1, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(relative_logit_invariance(shrunk), relative_logit_invariance(logits))
    torch.testing.assert_close(flip_rate(shrunk), flip_rate(logits))
    torch.testing.assert_close(jensen_shannon(logits + 5), jensen_shannon(logits))


def test_companions_at_their_ends():
    opposite = torch.tensor([[[30.0, 0.0]], [[0.0, 30.0]]])
    assert relative_logit_invariance(opposite).item() == pytest.approx(1.0)
    assert jensen_shannon(opposite).item() == pytest.approx(math.log(2), abs=1e-6)
    assert flip_rate(opposite).item() == 0.5  # half of the four pairs
    for companion in (relative_logit_invariance, jensen_shannon, flip_rate):
        assert companion(torch.zeros(4, 3, 9)).abs().max() == 0
        assert companion(opposite[:1].repeat(4, 1, 1)).abs().max() < 1e-7


def test_orbit_over_sample_variance(generator):
    """For Wx of white noise x: |W - WP|^2 / |WP|^2 with P the mean over the group, W less its mean
    over classes.
    """
    group, model = (
        Translations(2),
        nn.Sequential(nn.Flatten(), nn.Linear(36, 3, bias=False)),
    )
    weight = nn.init.normal_(model[1].weight.detach(), generator=generator)
    images = torch.randn(4000, 1, 6, 6, generator=generator)
    summary = measure(
        model, images, torch.zeros(4000).long(), group, steps=1, progress=False
    ).summary
    centred = (weight - weight.mean(0)).unflatten(1, (6, 6))
    mean = group.orbit(centred).mean(0)
    expected = ((centred - mean).norm() / mean.norm()).square().item()
    assert summary.orbit_over_sample_variance == pytest.approx(expected, rel=0.05)


def test_logit_invariance_of_a_linear_model(generator):
    """For h(x) = Wx and one g, |Wx - Wgx|^2 / 2 = e' W'W e / 2 with e = x - gx (Section 3.3)."""
    group, weight = Translations(2), torch.randn(9, 36, generator=generator, dtype=torch.float64)
    x = torch.randn(20, 6, 6, generator=generator, dtype=torch.float64)
    logits = group.orbit(x).flatten(2) @ weight.T
    e = (x - group.act(1, x)).flatten(1)
    expected = torch.einsum("np,pq,nq->n", e, weight.T @ weight, e) / 2
    torch.testing.assert_close(logit_invariance(logits, distinct=True), expected)


def test_saliency_similarity_with_an_empty_map_is_zero():
    maps = torch.stack([torch.zeros(1, 4), torch.ones(1, 4)])
    assert saliency_invariance(maps, distinct=True).item() == 0
    assert saliency_invariance(torch.zeros(2, 1, 4)).item() == 0


def test_saliency_similarity_of_unrelated_maps_is_at_chance(generator):
    """Two random directions in d dimensions have mean cosine 0 with deviation 1 / sqrt(d)."""
    maps = torch.randn(2, 500, 1296, generator=generator)
    similarity = saliency_invariance(maps, distinct=True)
    assert abs(similarity.mean()) < 4 / math.sqrt(1296 * 500)
    assert similarity.std().item() == pytest.approx(1 / math.sqrt(1296), rel=0.2)


@pytest.mark.parametrize("group", [Rotations(4), Translations(3)], ids=lambda group: group.name)
def test_measure_of_a_weight_tied_and_a_plain_network(group, generator):
    images, labels = torch.randn(300, 1, 36, 36, generator=generator), torch.arange(300) % 9
    tied = measure(MLP(group, generator=generator), images, labels, group, progress=False).samples
    assert tied.LI.max() < 1e-9 and tied.DI.max() < 1e-6 and tied.SI.min() > 0.999
    assert tied.accuracy.isin([0, 100]).all()
    plain = measure(MLP(generator=generator), images, labels, group, progress=False).samples
    assert plain.LI.min() > 1e-6 and plain.SI.mean() < 0.9
    assert list(plain.label) == labels.tolist()


def test_measure_works_for_any_classifier_and_does_not_change_it(generator):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).train()
    images = torch.randn(5, 3, 12, 12, generator=generator)
    table = measure(
        network, images, torch.zeros(5, dtype=torch.long), Rotations(4), steps=4, progress=False
    ).samples
    assert len(table) == 5 and table.notna().all().all() and network.training
    # A convolution padded with zeros and averaged sees cyclic shifts only at its border, rotations
    # everywhere
    assert table.LI.min() > 0


def test_measure_refuses_what_it_cannot_measure(generator):
    images = torch.randn(3, 1, 36, 36, generator=generator)
    with pytest.raises(
        ValueError, match=r"labels is a tensor \[2\]; allowed: a tensor \[3\] of integers"
    ):
        measure(MLP(), images, torch.zeros(2), Rotations(4))
    with pytest.raises(ValueError, match="not finite"):
        measure(
            MLP(generator=generator),
            images * torch.nan,
            torch.zeros(3).long(),
            Rotations(4),
            progress=False,
        )


def test_maps_that_are_not_finite_are_refused(generator):
    """Where finite logits have an infinite gradient, as that of a root at the baseline's zero."""

    class Root(nn.Module):
        def forward(self, x):
            return (
                x.flatten(1)[:, :2].abs().sqrt().sum(1, keepdim=True).expand(-1, 2)
                + x.flatten(1)[:, :2]
            )

    images = torch.zeros(3, 1, 4, 4)
    with pytest.raises(ValueError, match=r"^the maps are not finite; check the model$"):
        measure(Root(), images, torch.zeros(3).long(), Rotations(4), steps=2, progress=False)


class Flips(Group):
    """A group of another kind: order 2, turned upside down. No module knows it."""

    order, name = 2, "F2"

    def product(self, g, h):
        return g ^ h

    def inverse(self, g):
        return g

    def act(self, g, x):
        return x.flip(-2) if g else x


def gradient(model, images, labels):
    """Another attribution: the slope of the label's logit."""
    x = images.requires_grad_()
    return torch.autograd.grad(model(x).gather(1, labels[:, None]).sum(), x)[0]


@pytest.mark.parametrize(
    "group", [Rotations(4), Translations(3), Flips()], ids=lambda group: group.name
)
class TestOrbits:
    @pytest.fixture
    def seen(self, generator):
        images = torch.randn(7, 1, 36, 36, generator=generator, dtype=torch.float64)
        return MLP(width=16, generator=generator).double(), images, torch.arange(7) % 5

    def test_logits(self, group, seen):
        model, images, _ = seen
        logits = orbit_logits(model, images, group)
        assert logits.shape == (group.order, 7, 9) and not logits.requires_grad
        for g in group.elements:
            torch.testing.assert_close(logits[g], model(group.act(g, images)).detach())
        assert (logits[1] - logits[0]).abs().max() > 1e-3

    @pytest.mark.parametrize("attribute", [integrated_gradients, gradient])
    def test_maps(self, group, seen, attribute):
        """g^-1 m_f(gx), one element after another."""
        model, images, labels = seen
        options = dict(threshold=0.7, sigma=0.5)
        maps = orbit_maps(model, images, labels, group, attribute=attribute, **options)
        assert maps.shape == (group.order, *images.shape)
        for g in group.elements:
            there = saliency_map(attribute(model, group.act(g, images), labels), **options)
            torch.testing.assert_close(maps[g], group.act(group.inverse(g), there))
        assert saliency_invariance(maps).max() < 0.999

    def test_maps_are_those_of_measure(self, group, seen):
        model, images, labels = seen
        table = measure(model, images, labels, group, progress=False).samples
        similarity = saliency_invariance(orbit_maps(model, images, labels, group))
        torch.testing.assert_close(torch.tensor(table.SI.to_numpy()), similarity.detach())
        errors = logit_invariance(orbit_logits(model, images, group))
        torch.testing.assert_close(torch.tensor(table.LI.to_numpy()), errors)


def test_orbits_of_images_of_several_channels(generator):
    """Nor of a group of this kind alone."""
    images = torch.randn(4, 3, 12, 12, generator=generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 5))
    labels, group = torch.arange(4), Rotations(4)
    assert orbit_logits(model, images, group).shape == (4, 4, 5)
    assert orbit_maps(model, images, labels, group, attribute=gradient).shape == (4, 4, 3, 12, 12)


def test_jacobian_of_a_linear_model_is_its_weight(generator):
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4, dtype=torch.float64))
    images = torch.randn(3, 1, 6, 6, dtype=torch.float64, generator=generator)
    weight = model[1].weight.detach()
    assert torch.equal(jacobian(model, images), weight.expand(3, -1, -1))
    expected = torch.linalg.svdvals(weight)[0].expand(3)
    torch.testing.assert_close(largest_singular_value(model, images), expected)


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1.0, 1e22, 1e30])
def test_slopes_may_be_small_and_large(scale, generator):
    """Their squares would not be numbers in single precision."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    with torch.no_grad():
        model[1].weight.mul_(scale)
    images = torch.randn(3, 1, 6, 6, generator=generator)
    expected = torch.linalg.svdvals(model[1].weight.detach() / scale)[0].expand(3)
    torch.testing.assert_close(largest_singular_value(model, images) / scale, expected)


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
    sigma, (_, s, v) = (
        largest_singular_value(model, x),
        torch.linalg.svd(jacobian(model, x), full_matrices=False),
    )
    torch.testing.assert_close(sigma, s[:, 0])
    top = v[:, 0].view_as(x)
    reached = ((model(x + 1e-6 * top) - model(x)) / 1e-6).norm(dim=1)
    torch.testing.assert_close(reached, sigma, rtol=1e-4, atol=0)
    random = nn.functional.normalize(
        torch.randn(4, 1296, dtype=torch.float64, generator=generator)
    ).view_as(x)
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


@pytest.mark.parametrize("classes", [3, 7, 100, 1000])
def test_logits_that_are_all_alike_have_no_size(classes, generator):
    """Whatever their mean is rounded to; and what is small beside them has one."""
    alike = torch.rand(4, 5, 1, generator=generator, dtype=torch.float64).expand(-1, -1, classes)
    assert (relative_logit_invariance(alike) == 0).all()
    apart = torch.zeros(4, 5, classes, dtype=torch.float64)
    apart[..., 0] = 1e-9 * torch.arange(4.0)[:, None]
    torch.testing.assert_close(
        relative_logit_invariance(alike[:1] + apart),
        relative_logit_invariance(apart),
        rtol=1e-3,
        atol=0,
    )


@pytest.mark.parametrize("look", [jacobian, largest_singular_value])
def test_logits_without_a_slope_are_refused_in_one_line(look, generator):
    images = torch.randn(3, 1, 6, 6, generator=generator)
    for model in (
        nn.Sequential(nn.Flatten(), nn.Linear(36, 3), Apart()),
        nn.Sequential(nn.Flatten(), Rounded(), nn.Linear(36, 3)),
        Blind(),
    ):
        with pytest.raises(ValueError, match="^the (logits have|model has) no slope[^\n]*$"):
            look(model, images)


class Apart(nn.Module):
    def forward(self, x):
        return x.detach()


class Rounded(nn.Module):
    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.round()

    def forward(self, x):
        return self.Round.apply(x)


class Blind(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return self.bias.expand(len(x), 3)
