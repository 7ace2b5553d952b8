"""What a run costs: counted operations of training and of measuring, and their time here."""

import math
import time
from itertools import pairwise

import torch

from ginv.data import CLASSES, IMAGE_SHAPE, SPLITS
from ginv.groups import group_named
from ginv.recipe import Run
from ginv.saliency import STEPS

PIXELS = math.prod(IMAGE_SHAPE)
# Of the speed of a large matrix product; training and maps reach less where products are fast
EFFICIENCY = 0.6


def training_operations(run: Run, pixels: int = PIXELS) -> float:
    """Multiplications and additions of the matrix products of a run.

    On images of so many pixels and with every gx multiplied out.

    A layer is used once forward and twice backward, for its weights and for its inputs; images need
    no gradient, unless it is penalised: then each layer is used once more for it, and twice more
    for the slope of the penalty.
    """
    first, rest = _layers(run, pixels)
    step = 2 * first + 3 * rest
    if run.gradient_nu:
        step += 3 * (first + rest)
    epoch = run.train_images * run.views * step + SPLITS["validation"] * (first + rest)
    return run.epochs * epoch


def inference_operations(run: Run) -> float:
    """The same for one image in use; a tied layer takes it once an element of the group."""
    return sum(_layers(run))


def measurement_operations(run: Run, images: int, steps: int = STEPS) -> float:
    """The same for `measure`: the orbits of the images, integrated gradients of so many steps."""
    first, rest = _layers(run)
    return images * group_named(run.group).order * (2 * first + rest + steps * 2 * rest)


def minutes(operations: float, device: torch.device) -> float:
    """About how long so many operations of training and measuring take on this device."""
    return operations / operations_per_second(device) / EFFICIENCY / 60


def _layers(run: Run, pixels: int = PIXELS) -> tuple[int, int]:
    """Operations of the first layer and of the others, for one image forward."""
    copies = group_named(run.group).order if run.method == "WT" else 1
    widths = [run.first_width or run.width, *[run.width] * (run.depth - 1), CLASSES]
    return 2 * copies * pixels * widths[0], sum(
        2 * inputs * outputs for inputs, outputs in pairwise(widths)
    )


def operations_per_second(
    device: torch.device, size: int = 2048, dtype: torch.dtype = torch.float32
) -> float:
    """Speed of a matrix product, the best of three."""
    (a, b), seconds = torch.ones(2, size, size, device=device, dtype=dtype), []
    for _ in range(3):
        start = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / max(min(seconds), 1e-9)  # of a clock that stands still
