"""A picture of what a network makes of an image in all its orientations."""

from typing import Any

import torch
from torch import Tensor

COLUMNS = 8  # orientations at most
CLASSES = 10  # at most
LABELS = 0.9  # inches, left of the pictures
RED = (0.8, 0.0, 0.1)


def draw(seen: dict[str, tuple[Tensor, Tensor, Tensor | None]], width: float | None = None) -> Any:
    """A figure of images: their orbits, the maps turned back over the image, the predictions.

    width: in inches; None takes 1.5 for each orientation.

    seen: by what is said of an image, its orbit `[G, C, H, W]`, logits `[G, classes]` and maps
    `[G, C, H, W]`.
    """
    import matplotlib.pyplot as plt

    columns = min(COLUMNS, *(len(orbit) for orbit, _, _ in seen.values()))
    heights = [1.0, 1.0, 0.7] if all(maps is not None for *_, maps in seen.values()) else [1.0, 0.7]
    rows = len(heights) * len(seen)
    width = 1.5 * columns + LABELS if width is None else width
    side = (width - LABELS) / columns
    figure = plt.figure(figsize=(width, side * sum(heights) * len(seen)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=heights * len(seen))
    for number, (title, (orbit, logits, maps)) in enumerate(seen.items()):
        block = axes[number * len(heights) :]
        block[0, 0].set_ylabel(title)
        pictures = [picture(orbit)]
        if maps is not None:
            pictures.append(picture(orbit[0], maps))
            block[1, 0].set_ylabel("maps,\nturned back")
        for row, images in zip(block, pictures, strict=False):
            for axis, image in zip(row, images, strict=False):
                axis.imshow(image.numpy(), interpolation="nearest")
                axis.set(xticks=[], yticks=[])
        _bars(block[len(heights) - 1], logits)
    plt.close(figure)  # a notebook draws what is returned, and would draw it once more
    return figure


def picture(images: Tensor, maps: Tensor | None = None) -> Tensor:
    """Images `[..., C, H, W]` in grey or in their colours, and maps over them in red.

    -> `[..., H, W, 3]`, 0 to 1; each map is shown by its size at a pixel, over the largest.
    """
    low, high = images.amin(), images.amax()
    shown = ((images - low) / (high - low).clamp(min=1e-12)).float()
    colours = shown[..., :3, :, :] if shown.shape[-3] >= 3 else 1 - shown[..., :1, :, :] / 2
    colours = colours.expand(*colours.shape[:-3], 3, *colours.shape[-2:])
    if maps is not None:
        size = maps.float().sum(-3, keepdim=True)
        strength = (size / size.amax((-2, -1), keepdim=True).clamp(min=1e-30)).sqrt()
        red = size.new_tensor(RED).view(3, 1, 1)
        colours = torch.lerp(colours.expand(*size.shape[:-3], -1, -1, -1), red, strength)
    return colours.movedim(-3, -1)


def _bars(axes: Any, logits: Tensor) -> None:
    """The probabilities of the likeliest classes, for each element."""
    probabilities = logits.softmax(-1)
    classes = probabilities.mean(0).topk(min(CLASSES, logits.shape[-1])).indices.sort().values
    for axis, predicted in zip(axes, probabilities[:, classes].numpy(), strict=False):
        axis.bar(range(len(classes)), predicted, color="#0072B2")
        axis.set(ylim=(0, 1), yticks=[0, 1], xticks=range(len(classes)))
        axis.set_xticklabels(classes.tolist(), fontsize="x-small")
        axis.label_outer(remove_inner_ticks=True)
        axis.tick_params(axis="x", labelbottom=True, length=0)
    axes[0].set_ylabel("predicted")
