"""What tests of `measure` share: small networks, images that no group leaves alone, settings."""

from contextlib import contextmanager, nullcontext

import torch
from torch import Generator, nn

LABELS = [0, 1, 2, 0, 1]
IMAGES = torch.randn(5, 2, 6, 6, generator=Generator().manual_seed(0))


def seeded(make):
    """With PyTorch's own weights, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def network(outputs=3, channels=2):
    layers = nn.Conv2d, nn.ReLU, nn.Flatten, nn.Linear
    sizes = (channels, 4, 3, 1, 1), (), (), (144, outputs)
    return seeded(
        lambda: nn.Sequential(*(make(*size) for make, size in zip(layers, sizes, strict=True)))
    )


class Block(nn.Module):
    """Of little work and much memory: a convolution of each channel, then norm after norm."""

    def __init__(self, channels):
        super().__init__()
        convolution = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        norms = [layer for _ in range(5) for layer in (nn.BatchNorm2d(channels), nn.ReLU())]
        self.body = nn.Sequential(convolution, *norms)

    def forward(self, x):
        return (x + self.body(x)).relu()


def residual_network():
    """With a stem of stride 2, as ResNets have it: 3 x 224 x 224 -> 10 logits."""
    stem = nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)
    return seeded(lambda: nn.Sequential(*stem, Block(32), Block(32), *head))


@contextmanager
def default(setter, value, before):
    setter(value)
    try:
        yield
    finally:
        setter(before)


# What a caller may have set
SETTINGS = {
    "none": nullcontext,
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": lambda: default(torch.set_default_dtype, torch.float64, torch.float32),
    "meta": lambda: default(torch.set_default_device, "meta", None),
    "cpu": lambda: default(torch.set_default_device, "cpu", None),
    "deterministic": lambda: default(torch.use_deterministic_algorithms, True, False),
}
