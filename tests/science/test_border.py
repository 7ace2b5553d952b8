import pytest
import torch

from ginv import Run, group_named, load_dataset
from ginv.border import Border


@pytest.mark.parametrize("group", ["R4", "T3"])
def test_the_border_leaves_the_network_as_it_is(group, generator):
    images, run = load_dataset().train.images[:200], Run(group, "WT")
    border = Border.of(images, group_named(group))
    model = run.model(generator)
    stacked = {name: value[None] for name, value in model.state_dict().items()}
    leaves = border.split(stacked, torch.device("cpu"))
    for name, value in border.merge(leaves).items():
        assert torch.equal(value[0], model.state_dict()[name])
    inside = run.model()
    inside.features[1].image_shape = border.inside_shape
    joined = {name: value[0] for name, value in border.join(leaves).items()}
    seen = torch.func.functional_call(inside, joined, border.crop(images))
    torch.testing.assert_close(seen, model(images), rtol=1e-4, atol=1e-5)
    assert border.inside_shape[0] < 36


@pytest.mark.parametrize("group", ["R4", "T3"])
def test_all_images_are_alike_on_the_border(group):
    acting, images = group_named(group), load_dataset().train.images[:200]
    border = Border.of(images, acting)
    orbits = acting.orbit(images)
    orbits[..., border.rows, border.columns] = border.value
    assert (orbits == border.value).all()


@pytest.mark.parametrize(
    "lit", [slice(0, 1), slice(0, 2), slice(0, 0)], ids=["9 wide", "10 wide", "constant"]
)
def test_there_is_no_border_where_the_group_needs_the_whole_image(lit):
    """A cropped image 9 or 10 wide shifts by another distance, or not at all."""
    images = torch.zeros(2, 1, 12, 12)
    images[1, 0, 3, lit] = 1
    group = group_named("T3")
    border = Border.of(images, group)
    assert torch.equal(border.crop(group.orbit(images)), group.orbit(border.crop(images)))
    assert border.inside_shape[1] == 12
