"""The two networks of Section 4.1: a perceptron, and the same perceptron with a weight-tied first layer."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ginv.data import CLASSES, IMAGE_SHAPE
from ginv.groups import Group
from ginv.parameters import require

# Responses [n, G, features] and bias -> [n, features]. The paper does not say which; a maximum commutes with a ReLU
POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "max": lambda responses, bias: responses.amax(1) + bias,
    "mean": lambda responses, bias: responses.mean(1) + bias,
    "mean after ReLU": lambda responses, bias: (responses + bias).relu().mean(1),
}


class WeightTiedLinear(nn.Module):
    """A linear layer shared over a group and pooled over it: x -> max_g <gw, x> + b (Section 4.1, "Models").

    Tying means that the filters come as whole orbits. The action only permutes pixels, so <gw, hx> = <h^-1 gw, x>:
    moving the image permutes the responses of an orbit of filters, and their maximum stays. It has the parameters of
    `nn.Linear(height * width, features)`.
    """

    def __init__(self, group: Group, height: int, width: int, features: int, pooling: str = "max") -> None:
        super().__init__()
        require(isinstance(group, Group), "group", group, "a ginv.Group, such as ginv.Rotations(4)")
        require(pooling in [*POOLINGS], "pooling", pooling, ", ".join(POOLINGS))
        self.group, self.image_shape, self.pooling = group, (height, width), pooling
        self.weight = nn.Parameter(torch.empty(features, height * width))
        self.bias = nn.Parameter(torch.empty(features))

    def forward(self, x: Tensor) -> Tensor:
        """`[n, H * W]` -> `[n, features]`."""
        filters = self.group.orbit(self.weight.unflatten(1, self.image_shape)).flatten(2)  # [G, features, H * W]
        responses = F.linear(x, filters.flatten(0, 1)).unflatten(1, filters.shape[:2])  # [n, G, features]
        return POOLINGS[self.pooling](responses, self.bias)


class MLP(nn.Module):
    """Perceptron with ReLU: `depth` hidden layers of `width` units, the first of `first_width` where it is given, and a
    linear output; images -> logits.

    The paper's network is five hidden layers of 128 units on 36 x 36 images with 9 classes: 233,225 parameters. With a
    `group`, the first layer is weight-tied (WT): the network is invariant, with as many parameters.

    The network is `output(hidden(features(x)))`: `features` gives the first layer before its ReLU, `hidden` the
    penultimate representation.
    """

    def __init__(
        self,
        group: Group | None = None,
        *,
        image_shape: tuple[int, int] = IMAGE_SHAPE,
        classes: int = CLASSES,
        width: int = 128,
        depth: int = 5,
        first_width: int | None = None,
        pooling: str = "max",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        first_width = width if first_width is None else first_width
        for name, size in {"width": width, "depth": depth, "first_width": first_width, "classes": classes}.items():
            require(type(size) is int and size > 0, name, size, "integers from 1")
        pixels, widths = math.prod(image_shape), [first_width, *[width] * (depth - 1)]
        if group is None:
            first: nn.Module = nn.Linear(pixels, first_width)
        else:
            first = WeightTiedLinear(group, *image_shape, first_width, pooling)
        hidden = [layer for sizes in pairwise(widths) for layer in (nn.ReLU(), nn.Linear(*sizes))]
        self.features = nn.Sequential(nn.Flatten(), first)
        self.hidden = nn.Sequential(*hidden, nn.ReLU())
        self.output = nn.Linear(widths[-1], classes)
        initialise(self, generator)

    @property
    def starts_linear(self) -> bool:
        """Whether features(ax) - features(0) is a (features(x) - features(0)) for every a >= 0."""
        return getattr(self.features[1], "pooling", None) != "mean after ReLU"

    def forward(self, x: Tensor) -> Tensor:
        """Images `[n, 1, H, W]` -> logits `[n, classes]`."""
        return self.output(self.hidden(self.features(x)))


@torch.no_grad()
def initialise(model: nn.Module, generator: Generator | None) -> None:
    """PyTorch's default for linear layers, uniform in +-1 / sqrt(inputs); no generator: PyTorch's own."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear | WeightTiedLinear):
            bound = 1 / math.sqrt(layer.weight.shape[1])
            for parameter in (layer.weight, layer.bias):
                parameter.uniform_(-bound, bound, generator=generator)
