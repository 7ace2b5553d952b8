import pytest
import torch
from captum.attr import IntegratedGradients

from ginv import (
    MLP,
    Rotations,
    Translations,
    integrated_gradients,
    load_dataset,
    saliency_invariance,
    saliency_map,
)

GROUPS = [Rotations(4), Translations(3)]


@pytest.fixture
def images(generator):
    return torch.randn(70, 1, 36, 36, generator=generator)  # more than one part of 64


@pytest.mark.parametrize("group", [None, *GROUPS], ids=["MLP", "WT R4", "WT T3"])
def test_fast_path_agrees_with_captum(group, images, generator):
    model, targets = MLP(group, generator=generator).double(), torch.arange(70) % 9
    fast = integrated_gradients(model, images.double(), targets)
    reference = IntegratedGradients(model).attribute(images.double(), target=targets, n_steps=50)
    assert (fast - reference).norm() < 1e-8 * reference.norm()
    # Rounding can flip a ReLU at a step
    single = integrated_gradients(model.float(), images, targets)
    assert (single - reference).norm() < 1e-2 * reference.norm()


TIED = [
    *(dict(group=group, pooling=pooling) for group in GROUPS for pooling in ("max", "mean")),
    dict(group=Rotations(4), pooling="mean after ReLU"),
]


@pytest.mark.parametrize(
    "baseline", [-0.42, 1, torch.tensor(2.0), torch.full((1, 1, 1, 1), -0.5)], ids=str
)
@pytest.mark.parametrize("options", [{}, *TIED], ids=str)
def test_any_baseline_of_one_value_agrees_with_captum(options, baseline, images, generator):
    """Which gets a copy of the network that is no MLP."""
    model = MLP(**options, generator=generator).double()
    plain = torch.nn.Sequential(model.features, model.hidden, model.output)
    images, targets = images[:12].double(), torch.arange(12) % 9
    fast = integrated_gradients(model, images, targets, baseline=baseline)
    start = torch.as_tensor(baseline, dtype=images.dtype).expand_as(images)
    captum = IntegratedGradients(plain).attribute(images, start, target=targets, n_steps=50)
    assert (fast - captum).norm() < 1e-4 * captum.norm()
    other = integrated_gradients(model, images, targets, baseline=float(baseline) + 0.3)
    assert (other - captum).norm() > 1e-2 * captum.norm()


@pytest.mark.parametrize(
    ("options", "baseline", "is_fast"),
    [
        ({}, -0.42, True),
        ({}, torch.zeros(1), True),
        (TIED[0], 1.0, True),
        (TIED[1], 1.0, True),
        (TIED[-1], 0.0, False),  # the mean after the ReLU is not linear along the path
        ({}, torch.zeros(1, 1, 36, 36), False),
    ],
)
def test_which_way_is_fast(options, baseline, is_fast, images, generator, monkeypatch):
    def unwanted(*_):
        raise InterruptedError

    away = "captum.attr.IntegratedGradients" if is_fast else "ginv.saliency._integrate_mlp"
    monkeypatch.setattr(away, unwanted)
    model, targets = MLP(**options, width=8, generator=generator), torch.zeros(70).long()
    integrated_gradients(model, images, targets, baseline=baseline)


@pytest.mark.parametrize(
    "baseline", [0.0, -0.5, torch.linspace(-1, 1, 36)], ids=["zero", "black", "shaded"]
)
def test_completeness(baseline, images, generator):
    """Attributions sum to the difference of the logits at the ends of the path."""
    model, images, targets = MLP(generator=generator), images[:9], torch.arange(9)
    attributions = integrated_gradients(model, images, targets, steps=1000, baseline=baseline)
    start = torch.as_tensor(baseline).expand_as(images)
    rise = (model(images) - model(start)).gather(1, targets[:, None]).squeeze(1)
    room = 5e-3 * rise.abs().max().item()
    torch.testing.assert_close(attributions.sum((1, 2, 3)), rise, atol=room, rtol=0)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_maps_move_with_the_group(group, images):
    """SI is 1 for an equivariant attribution, so thresholding and blurring must commute with the
    action.
    """
    maps = group.align(saliency_map(group.orbit(images)))
    torch.testing.assert_close(maps, saliency_map(images).expand_as(maps))
    torch.testing.assert_close(saliency_invariance(maps), torch.ones(70))


def test_map_keeps_the_largest_and_spreads_a_gaussian():
    attribution = torch.zeros(1, 1, 9, 9)
    attribution[..., 4, 4], attribution[..., 0, 0] = -2.0, 1.7  # 1.7 < 0.9 x 2
    saliency = saliency_map(attribution)[0, 0]
    kernel = torch.exp(-torch.tensor([1.0, 0.0, 1.0]) / 2)
    kernel /= kernel.sum()
    torch.testing.assert_close(saliency[3:6, 3:6], 2 * torch.outer(kernel, kernel))
    assert saliency.count_nonzero() == 9
    assert saliency_map(attribution, threshold=0.8, sigma=0).count_nonzero() == 2


def test_bad_values_are_refused(images, generator):
    with pytest.raises(ValueError, match="threshold is 1.5; allowed"):
        saliency_map(images, threshold=1.5)
    with pytest.raises(ValueError, match="sigma is -1; allowed"):
        saliency_map(images, sigma=-1)
    with pytest.raises(ValueError, match="steps is 0; allowed"):
        integrated_gradients(MLP(generator=generator), images, torch.zeros(70).long(), steps=0)


def test_similarity_of_maps_of_different_images_is_at_chance(generator):
    """SI must be low where there is nothing to find: maps of unrelated images, of which one spot
    each remains.
    """
    images = load_dataset().test.images[:200]
    attributions = integrated_gradients(MLP(generator=generator), images, torch.zeros(200).long())
    maps = saliency_map(attributions)
    strangers = saliency_invariance(torch.stack([maps, maps.roll(1, 0)]), distinct=True)
    assert 0 <= strangers.mean() < 0.2
    assert saliency_invariance(torch.stack([maps, maps]), distinct=True).min() > 0.999
