"""The networks of Section 4.1: a perceptron, and the same with a weight-tied first layer."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.nn.utils import skip_init

from ginv.data import CLASSES, IMAGE_SHAPE
from ginv.groups import Group
from ginv.refuse import require

# Responses [n, G, features] and bias -> [n, features]. The paper does not say which; a maximum
# commutes with a ReLU
POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "max": lambda responses, bias: responses.amax(1) + bias,
    "mean": lambda responses, bias: responses.mean(1) + bias,
    "mean after ReLU": lambda responses, bias: (responses + bias).relu().mean(1),
}

# Inputs and outputs of a layer -> the largest of its initial weights, which are uniform. The paper
# names Glorot and He and does not say which it took
INITIALISATIONS: dict[str, Callable[[int, int], float]] = {
    "pytorch": lambda inputs, outputs: 1 / math.sqrt(inputs),
    "glorot": lambda inputs, outputs: math.sqrt(6 / (inputs + outputs)),
    "he": lambda inputs, outputs: math.sqrt(6 / inputs),
}


class WeightTiedLinear(nn.Module):
    """A linear layer shared over a group and pooled over it: x -> max_g <gw, x> + b.

    Tying means that the filters come as whole orbits. The action only permutes pixels, so <gw, hx>
    = <h^-1 gw, x>: moving the image permutes the responses of an orbit of filters, and their
    maximum stays. It has the parameters of `nn.Linear(height * width, features)`, from the
    generator, or PyTorch's own.
    """

    def __init__(
        self,
        group: Group,
        height: int,
        width: int,
        features: int,
        pooling: str = "max",
        dtype: torch.dtype | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        require(isinstance(group, Group), "group", group, "a ginv.Group, such as ginv.Rotations(4)")
        require(pooling in [*POOLINGS], "pooling", pooling, ", ".join(POOLINGS))
        self.group, self.image_shape, self.pooling = group, (height, width), pooling
        self.weight = nn.Parameter(torch.empty(features, height * width, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(features, dtype=dtype))
        initialise(self, generator)

    @property
    def only_moves_pixels(self) -> bool:
        """Whether its group does, and does not interpolate between them."""
        pixels = torch.arange(math.prod(self.image_shape)).to(self.weight)
        orbit = self.group.orbit(pixels.view(1, 1, *self.image_shape))
        return bool((orbit.flatten(1).sort().values == pixels).all())

    def forward(self, x: Tensor) -> Tensor:
        """`[n, H * W]` -> `[n, features]`."""
        weight = self.weight.unflatten(1, (1, *self.image_shape))
        filters = self.group.orbit(weight).flatten(2)  # [G, features, H * W]
        responses = F.linear(x, filters.flatten(0, 1))
        responses = responses.unflatten(1, filters.shape[:2])  # [n, G, features]
        return POOLINGS[self.pooling](responses, self.bias)


class MLP(nn.Module):
    """A perceptron with ReLU: images -> logits.

    It has `depth` hidden layers of `width` units, the first of `first_width` where it is given, and
    a linear output. The paper's has five of 128 units, on 36 x 36 images with 9 classes: 233,225
    parameters. With a `group`, the first layer is weight-tied (WT): the network is invariant, with
    as many parameters.

    It is `output(hidden(features(x)))`: `features` gives the first layer before its ReLU, `hidden`
    the penultimate representation.
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
        initialisation: str = "pytorch",
        dtype: torch.dtype | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        known = [*INITIALISATIONS]
        require(initialisation in known, "initialisation", initialisation, ", ".join(known))
        first_width = width if first_width is None else first_width
        sizes = dict(width=width, depth=depth, first_width=first_width, classes=classes)
        for name, size in sizes.items():
            require(type(size) is int and size > 0, name, size, "integers from 1")
        pixels, widths = math.prod(image_shape), [first_width, *[width] * (depth - 1)]
        if group is None:
            first: nn.Module = _linear(pixels, first_width, dtype)
        else:
            some = Generator()  # of weights that `initialise` overwrites below
            first = WeightTiedLinear(group, *image_shape, first_width, pooling, dtype, some)
        hidden = [
            layer for ends in pairwise(widths) for layer in (nn.ReLU(), _linear(*ends, dtype))
        ]
        self.features = nn.Sequential(nn.Flatten(), first)
        self.hidden = nn.Sequential(*hidden, nn.ReLU())
        self.output = _linear(widths[-1], classes, dtype)
        initialise(self, generator, initialisation)

    def starts_linear(self, baseline: float = 0.0) -> bool:
        """Whether features(b + a (x - b)) - features(b) is a (features(x) - features(b)), a >= 0.

        b is an image of one value. The maximum over tied filters is so from 0, and from another
        value where all of them answer alike to it, as they do where the group only moves pixels.
        """
        first = self.features[1]
        if not isinstance(first, WeightTiedLinear) or first.pooling == "mean":
            return True
        return first.pooling == "max" and (baseline == 0 or first.only_moves_pixels)

    @property
    def is_as_built(self) -> bool:
        """Whether it is still what `__init__` made: no other layer, no hook, nothing overridden."""
        first, hidden = [*map(type, self.features)], [*map(type, self.hidden)]
        return (
            type(self) is MLP
            and type(self.features) is type(self.hidden) is nn.Sequential
            and first in ([nn.Flatten, nn.Linear], [nn.Flatten, WeightTiedLinear])
            and hidden == [nn.ReLU, *[nn.Linear, nn.ReLU] * (len(hidden) // 2)]
            and type(self.output) is nn.Linear
            and not any(map(_is_changed, self.modules()))
            and not _has_hooks(nn.modules.module)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images `[n, 1, H, W]` -> logits `[n, classes]`."""
        return self.output(self.hidden(self.features(x)))


HOOKS = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")


def _has_hooks(of: object) -> bool:
    """Whether a module, or torch for all modules, has any hook."""
    names = [f"_{name}" for name in HOOKS] + [f"_global_{name}" for name in HOOKS]
    return any(getattr(of, name, None) for name in names)


def _is_changed(module: nn.Module) -> bool:
    parts = {*module._parameters.values()} - {None}
    is_single = all(p.dtype in (torch.float32, torch.float64) for p in parts)  # type: ignore[union-attr]
    return _has_hooks(module) or "forward" in vars(module) or not is_single


def _linear(inputs: int, outputs: int, dtype: torch.dtype | None = None) -> nn.Linear:
    """Without weights: PyTorch would draw some from its own generator."""
    return skip_init(nn.Linear, inputs, outputs, dtype=dtype)


@torch.no_grad()
def initialise(
    model: nn.Module, generator: Generator | None, initialisation: str = "pytorch"
) -> None:
    """The initial weights of linear layers, tied or not; the biases are PyTorch's in each case.

    Without a generator, from PyTorch's own.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear | WeightTiedLinear):
            outputs, inputs = layer.weight.shape
            largest = INITIALISATIONS[initialisation](inputs, outputs)
            layer.weight.uniform_(-largest, largest, generator=generator)
            largest = INITIALISATIONS["pytorch"](inputs, outputs)
            layer.bias.uniform_(-largest, largest, generator=generator)


class Ensemble(nn.Module):
    """The mean of the logits of its members: `[n, 1, H, W]` -> `[n, classes]`."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members]).mean(0)


def small_convnet(generator: Generator | None = None, *, classes: int = CLASSES) -> nn.Sequential:
    """A network that is no perceptron: three convolutions, each with BatchNorm and ReLU.

    `[n, 1, 36, 36]` -> `[n, classes]`, with He's weights. Two kernels are 4 wide and not 3: at a
    stride of 2 only those of even width see an image of even width from all sides alike, as
    `symmetrise` needs.
    """
    features = nn.Sequential()
    for sizes in ((1, 16, 4), (16, 32, 4), (32, 32, 3)):
        convolution = skip_init(nn.Conv2d, *sizes, stride=2, padding=1)
        features.extend([convolution, nn.BatchNorm2d(sizes[1]), nn.ReLU()])
    model = nn.Sequential(features.append(nn.Flatten()), _linear(32 * 5 * 5, classes))
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return model
