import pytest
import torch
from captum.attr import IntegratedGradients, Saliency
from torch import nn
from torch.nn.utils import prune

from ginv import (
    MLP,
    Rotations,
    Translations,
    gradients,
    integrated_gradients,
    load_dataset,
    saliency_invariance,
    saliency_map,
)
from ginv.networks import POOLINGS

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


class OverTheEdge(Translations):
    """What leaves the image does not come back: its orientations have other sums."""

    def act(self, g, x):
        return nn.functional.pad(x, (12 * g, -12 * g))


TIED = [
    *(dict(group=group, pooling=pooling) for group in GROUPS for pooling in ("max", "mean")),
    dict(group=OverTheEdge(3)),
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
        (TIED[-2], 0.0, True),
        (TIED[-2], 1.0, False),  # nor is the maximum over filters of other sums
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


def perceptron(generator, group=None, kind=MLP):
    options = dict(width=16, depth=3, classes=4, image_shape=(12, 12), generator=generator)
    return kind(group, **options).double().eval()


def agrees_with_captum(model, images):
    """Which gets a module that nobody can take for a perceptron."""

    class Other(nn.Module):
        def forward(self, x):
            return model(x)

    targets = torch.arange(len(images)) % 4
    captum = IntegratedGradients(Other()).attribute(images, target=targets, n_steps=20)
    size = captum.abs().max().item()
    found = integrated_gradients(model, images, targets, steps=20)
    torch.testing.assert_close(found, captum, rtol=1e-6, atol=1e-9 * size)
    return size > 1e-6


# What a hook changes in a linear layer
HOOKS = {
    "forward": lambda _, inputs, output: output.tanh(),
    "forward_pre": lambda _, inputs: (inputs[0].tanh(),),
    "full_backward": lambda _, incoming, outgoing: (2 * incoming[0],),
    "full_backward_pre": lambda _, outgoing: (2 * outgoing[0],),
}


class Bent(nn.Linear):
    """A linear layer that is none."""

    def forward(self, x):
        return super().forward(x).tanh()


class Squared(MLP):
    def forward(self, x):
        return super().forward(x).square()


def hooked(name, hook):
    return lambda model: getattr(model.hidden[1], f"register_{name}_hook")(hook)


def with_layer(place, make):
    return lambda model: model.hidden.__setitem__(place, make(model.hidden[place]))


def trained_norm(_):
    norm = nn.BatchNorm1d(16).double().eval()
    norm.running_mean += torch.linspace(-1, 1, 16)
    norm.running_var *= torch.linspace(0.1, 2, 16)
    return norm


def parametrised(model):
    nn.utils.parametrize.register_parametrization(model.hidden[1], "weight", nn.Tanh())


def overridden(model):
    plain = model.forward
    model.forward = lambda x: plain(x).square()


CHANGES = {
    "nothing": lambda model: None,
    **{f"{name} hook": hooked(name, hook) for name, hook in HOOKS.items()},
    "GELU": with_layer(2, lambda _: nn.GELU()),
    "BatchNorm": with_layer(0, trained_norm),
    "another linear layer": with_layer(1, lambda _: Bent(16, 16).double()),
    "another end": with_layer(4, lambda _: nn.Softplus()),
    "parametrisation": parametrised,
    "weight norm": with_layer(1, nn.utils.parametrizations.weight_norm),
    "weight norm by hooks": with_layer(1, nn.utils.weight_norm),
    "pruned": with_layer(1, lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),
    "another forward": overridden,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize("group", [None, Rotations(4)], ids=["plain", "tied"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_perceptron_that_was_changed_gets_its_own_gradient(change, group, generator):
    model = perceptron(generator, group)
    CHANGES[change](model)
    assert model.is_as_built == (change == "nothing")
    assert agrees_with_captum(model, torch.randn(6, 1, 12, 12, generator=generator).double())


@pytest.mark.parametrize("name", HOOKS)
def test_so_does_one_under_a_hook_of_all_modules(name, generator):
    def hook(module, *others):
        return HOOKS[name](module, *others) if isinstance(module, nn.Linear) else None

    model, images = perceptron(generator), torch.randn(6, 1, 12, 12, generator=generator).double()
    handle = getattr(nn.modules.module, f"register_module_{name}_hook")(hook)
    try:
        assert not model.is_as_built and agrees_with_captum(model, images)
    finally:
        handle.remove()
    assert model.is_as_built


def test_so_do_a_subclass_and_one_with_a_pooling_of_its_own(generator, monkeypatch):
    """Of which nobody has said that it is linear along the path."""
    images = torch.randn(6, 1, 12, 12, generator=generator).double()
    assert agrees_with_captum(perceptron(generator, kind=Squared), images)
    squares = {"sum of squares": lambda found, bias: found.square().sum(1) + bias}
    monkeypatch.setattr("ginv.networks.POOLINGS", POOLINGS | squares)
    model = perceptron(generator, Rotations(4))
    model.features[1].pooling = "sum of squares"
    assert agrees_with_captum(model, images)


@pytest.mark.parametrize("size", [1, 2, 7, 100, "auto"])
@pytest.mark.parametrize("start", [0.3, torch.linspace(-1, 1, 12)], ids=["grey", "shaded"])
def test_as_many_at_once_as_one_likes(size, start, generator):
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(300, 4)).double()
    images = torch.randn(9, 1, 12, 12, generator=generator, dtype=torch.float64)
    targets, options = torch.arange(9) % 4, dict(steps=5, baseline=start)
    whole = integrated_gradients(model, images, targets, **options, batch_size=1000)
    found = integrated_gradients(model, images, targets, **options, batch_size=size)
    torch.testing.assert_close(found, whole)


class Product(nn.Module):
    """Of two sums of pixels; and the ReLU of their difference."""

    def forward(self, x):
        a, b = x[..., 0].sum((1, 2)), x[..., 1].sum((1, 2))
        return torch.stack([a * b, (a - b - 1).relu()], 1)


BY_HAND = [
    # Along (t a, t b) the slope of a b is (t b, t a): half of each
    ((2.0, 3.0), 0, 0.0, (3.0, 3.0)),
    ((2.0, -3.0), 0, 0.0, (-3.0, -3.0)),
    # From (1, 1): slopes of 1 + t (b - 1) and 1 + t (a - 1), times a - 1 and b - 1
    ((2.0, 3.0), 0, 1.0, (2.0, 3.0)),
    # The ReLU begins where t (a - b) = 1, for a - b = 4 at a quarter of the path
    ((3.0, -1.0), 1, 0.0, (2.25, 0.75)),
    ((1.0, 3.0), 1, 0.0, (0.0, 0.0)),
]


@pytest.mark.parametrize(("pixels", "target", "start", "expected"), BY_HAND)
def test_products_and_kinks_by_hand(pixels, target, start, expected):
    """captum's own test models, in closed form."""
    images = torch.tensor(pixels, dtype=torch.float64).view(1, 1, 1, 2)
    options = dict(steps=100, baseline=start)
    found = integrated_gradients(Product(), images, torch.tensor([target]), **options)
    torch.testing.assert_close(found.flatten().tolist(), [*expected], rtol=2e-2, atol=0)


def test_a_linear_network_s_attribution_is_weight_times_distance(generator):
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 3, dtype=torch.float64))
    images = torch.randn(5, 2, 2, 2, generator=generator, dtype=torch.float64)
    targets, start = torch.tensor([0, 1, 2, 0, 1]), torch.linspace(0, 1, 2).view(2, 1, 1).double()
    weights = model[1].weight[targets].view_as(images).detach()
    found = integrated_gradients(model, images, targets, steps=1, baseline=start)
    torch.testing.assert_close(found, weights * (images - start))
    torch.testing.assert_close(gradients(model, images, targets), weights)


def test_gradients_are_those_of_autograd_and_of_captum(generator):
    model = perceptron(generator)
    images = torch.randn(5, 1, 12, 12, generator=generator, dtype=torch.float64)
    targets = torch.arange(5) % 4
    x = images.clone().requires_grad_()
    by_hand = torch.stack(
        [torch.autograd.grad(model(x)[i, t], x)[0][i] for i, t in enumerate(targets)]
    )
    found = gradients(model, images, targets)
    torch.testing.assert_close(found, by_hand)
    torch.testing.assert_close(found, Saliency(model).attribute(x, target=targets, abs=False))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("fast", [True, False])
def test_attributions_are_in_the_images_precision_and_halves_in_single(kind, fast, generator):
    model = (
        perceptron(generator).float() if fast else nn.Sequential(nn.Flatten(), nn.Linear(144, 4))
    )
    images = torch.randn(5, 1, 12, 12, generator=generator).to(kind)
    found = integrated_gradients(model, images, [0, 1, 2, 3, 0], steps=2)
    assert found.dtype == (torch.float64 if kind == torch.float64 else torch.float32)


BASELINES = [
    float("nan"),
    float("inf"),
    True,
    "black",
    [0.0],
    torch.tensor(float("nan")),
    torch.zeros(2, 12, 12),
    torch.zeros(13),
    torch.zeros(5, 1, 1, 12, 12),
    torch.zeros(1, dtype=torch.complex64),
]


@pytest.mark.parametrize("start", BASELINES, ids=str)
def test_what_is_no_baseline_is_refused_in_one_line(start, generator):
    images = torch.randn(5, 1, 12, 12, generator=generator)
    with pytest.raises(
        ValueError, match=r"^baseline is [^\n]*; allowed: a finite number, or a t[^\n]*$"
    ):
        integrated_gradients(perceptron(generator), images, [0] * 5, baseline=start)


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "all", None])
def test_what_is_no_batch_size_is_refused_in_one_line(size, generator):
    images = torch.randn(5, 1, 2, 2, generator=generator)
    with pytest.raises(ValueError, match=r"^batch_size is .*; allowed: auto, or integers from 1$"):
        integrated_gradients(nn.Flatten(), images, [0] * 5, batch_size=size)


@pytest.mark.parametrize("kind", [torch.bool, torch.int8, torch.uint8, torch.int64])
def test_a_map_of_whole_numbers_is_one_of_their_sizes(kind):
    attribution = torch.tensor([[[0, 0, 1], [0, 0, 0], [1, 0, 0]]]).to(kind)
    torch.testing.assert_close(saliency_map(attribution), saliency_map(attribution.float()))
    least = torch.full((1, 3, 3), -128, dtype=torch.int8)  # whose size is no int8
    torch.testing.assert_close(saliency_map(least), torch.full((1, 3, 3), 128.0))
