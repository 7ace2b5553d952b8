import pytest
import torch
from torch import nn

from ginv import MLP, Rotations, Translations, assert_invariant, group_named, symmetrise


@pytest.mark.parametrize(
    "group",
    [*map(group_named, ("R2", "R4", "T3", "T12", "V3", "D1", "D4", "T3xV3", "T2xR1"))],
    ids=lambda group: group.name,
)
def test_a_symmetric_network_is_invariant_and_its_features_are_not(group, generator):
    """Whether or not the order divides the 128 units; with weights of the size that they had."""
    x = torch.randn(32, 1, 36, 36, generator=generator, dtype=torch.float64)
    model, random = (
        MLP(initialisation="he", generator=torch.Generator().manual_seed(0)).double()
        for _ in range(2)
    )
    symmetrise(model, group)
    logits, features = model(x), model.features(x)
    assert logits.std(0).min() > 0.01
    for g in group.elements[1:]:
        assert (model(group.act(g, x)) - logits).abs().max() < 1e-12, f"{group.name}: {g}"
        moved = model.features(group.act(g, x))
        assert (moved - features).abs().mean() > 0.1
        torch.testing.assert_close(moved.sort(1).values, features.sort(1).values)  # a permutation
    for (name, value), before in zip(
        model.state_dict().items(), random.state_dict().values(), strict=True
    ):
        if value.numel() > 10_000:
            assert value.std().item() == pytest.approx(before.std().item(), rel=0.1), name


@pytest.mark.parametrize("group", [Rotations(4), Translations(3)], ids=lambda group: group.name)
def test_filters_come_as_orbits(group):
    """Unit f * order + g is filter f moved by g; filter 0, worked out by hand."""
    model, random = (MLP(generator=torch.Generator().manual_seed(0)) for _ in range(2))
    symmetrise(model, group)
    filters, before = (
        network.features[1].weight.unflatten(1, (36, 36)) for network in (model, random)
    )
    filters = filters[: 128 // group.order * group.order]
    for g in group.elements:
        torch.testing.assert_close(filters[g :: group.order], group.act(g, filters[:: group.order]))
    by_hand = sum(group.act(g, before[group.inverse(g)]) for g in group.elements) / group.order**0.5
    torch.testing.assert_close(filters[0], by_hand)


def strided(kernels, bias=True):
    sizes, layers = [(1, 16), (16, 32), (32, 32)], []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for channels, kernel in zip(sizes, kernels, strict=True):
            layers += [nn.Conv2d(*channels, kernel, stride=2, padding=1, bias=bias), nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 5 * 5, 9, bias=bias)).double()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["R2", "R4", "D1", "D2", "D4"])
def test_symmetric_convolutions_are_invariant(name, bias, generator):
    """A kernel of 4 at a stride of 2 looks at an even image from all sides alike."""
    model, group = strided((4, 4, 3), bias), group_named(name)
    assert symmetrise(model, group) is model
    x = torch.randn(8, 1, 36, 36, dtype=torch.float64, generator=generator)
    assert_invariant(model, x, group, atol=1e-12, rtol=0)
    assert model(x).std(0).min() > 1e-3


@pytest.mark.parametrize(
    ("layers", "group", "message"),
    [
        (
            [nn.BatchNorm2d(1)],
            Rotations(4),
            r"output of the model is a tensor \[8, 1, 36, 36\]; allowed: logits",
        ),
        (
            [nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36 * 36, 9)],
            Translations(3),
            r"layer 0 \(Conv2d\) does not see images 1 x 36 x 36 alike in all orientations of T3",
        ),
        ([nn.MultiheadAttention(8, 2)], Rotations(4), r"layer is .*; allowed: linear"),
        (
            [nn.Linear(784, 9)],
            Rotations(4),
            r"input_shape is \(1, 36, 36\); allowed: C, H, W of 784 pixels",
        ),
        (
            [nn.Conv2d(1, 4, 3), nn.Linear(12, 9)],
            Rotations(4),
            "is 12; allowed: 4 times a square number",
        ),
    ],
)
def test_layers_that_cannot_be_symmetric_are_refused_and_left_as_they_are(layers, group, message):
    model = nn.Sequential(*layers)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        symmetrise(model, group)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_network_on_the_gpu_becomes_the_same(generator):
    here = MLP(generator=generator)
    there = MLP()
    there.load_state_dict(here.state_dict())
    for model in (here, there.cuda()):
        symmetrise(model, Rotations(4))
    for name, value in there.state_dict().items():
        torch.testing.assert_close(value.cpu(), here.state_dict()[name])
