import itertools

import pytest
import torch

from ginv import Rotations, Translations, group_named

GROUPS = [
    Rotations(1),
    Rotations(2),
    Rotations(4),
    Translations(1),
    Translations(3),
    Translations(12),
]
named = pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)


@named
def test_axioms(group):
    elements = group.elements
    for a, b, c in itertools.product(elements, repeat=3):
        assert group.product(a, b) in elements
        assert group.product(group.product(a, b), c) == group.product(a, group.product(b, c))
    for a in elements:
        assert group.product(group.identity, a) == group.product(a, group.identity) == a
        assert (
            group.product(group.inverse(a), a)
            == group.product(a, group.inverse(a))
            == group.identity
        )


@named
def test_action_is_a_faithful_permutation_of_pixels(group):
    pixels = torch.arange(2 * 36 * 36).view(2, 1, 36, 36)
    assert torch.equal(group.act(group.identity, pixels), pixels)
    for g, h in itertools.product(group.elements, repeat=2):
        moved = group.act(g, group.act(h, pixels))
        assert torch.equal(moved, group.act(group.product(g, h), pixels)), f"{group.name}: {g}, {h}"
        assert torch.equal(moved[1].unique(), pixels[1].unique())
        assert (g == h) == torch.equal(group.act(g, pixels), group.act(h, pixels))


@named
def test_align_undoes_the_orbit(group, generator):
    x = torch.randn(3, 36, 36, generator=generator)
    assert torch.equal(group.align(group.orbit(x)), x.expand(group.order, 3, 36, 36))


def test_actions_are_the_ones_they_are_called():
    corner = torch.zeros(6, 6)
    corner[0, 0] = 1
    # A quarter turn counter-clockwise: top left to bottom left
    assert Rotations(4).act(1, corner)[5, 0] == 1
    # Two of six pixels to the right
    assert Translations(3).act(1, corner)[0, 2] == 1


def test_an_order_that_does_not_fit_is_refused():
    with pytest.raises(
        ValueError, match="order 5 of Translations does not divide the image width 36"
    ):
        Translations(5).orbit(torch.zeros(1, 36, 36))
    with pytest.raises(ValueError, match="square images, got 28 x 36"):
        Rotations(4).orbit(torch.zeros(28, 36))
    with pytest.raises(ValueError, match="order of Rotations is 3"):
        Rotations(3)
    for name in ("S3", "R", "T-1", "", None, "R3"):
        with pytest.raises(ValueError):
            group_named(name)


@named
def test_names_round_trip(group):
    assert group_named(group.name) == group
