"""Drawings that one page alone has, in the style of `ginv.pages.figures`."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.ticker import LogLocator
from torch import Tensor

from ginv.groups import Group
from ginv.pages.figures import (
    GROUP_NAMES,
    METHOD_NAMES,
    METHOD_STYLES,
    MethodStyle,
    show_saliency,
)


def show_images(rows: dict[str, dict[str, Tensor]]) -> None:
    """Rows of titled images `[H, W]`, a row per group; where some are below 0, 0 is mid-grey."""
    columns = max(map(len, rows.values()))
    size = (8, len(rows) * (8 / columns + 0.45))
    _, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(GROUP_NAMES[name], fontsize="small")
        for axis, (title, image) in zip(line, images.items(), strict=False):
            high, low = image.abs().max().item(), -1.0 if image.min() < 0 else 0.0
            axis.imshow(image, cmap="gray_r", vmin=low * high, vmax=high, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.set_title(title, fontsize="small")
            axis.grid(visible=False)
            axis.spines[:].set_visible(True)


def show_seeds(
    axis: Axes, values: dict[str, pd.Series], looks: dict[str, MethodStyle], hollow: list[str]
) -> None:
    """A column per name: a marker per seed, open where it is hollow, and a bar at the mean."""
    for place, (name, value) in enumerate(values.items()):
        fill = "none" if name in hollow else looks[name].colour
        dots: dict[str, Any] = dict(color=looks[name].colour, mfc=fill, ls="")
        axis.plot([place] * len(value), value, marker=looks[name].marker, **dots)
        axis.hlines(value.mean(), place - 0.3, place + 0.3, looks[name].colour)
    axis.set_xticks(range(len(values)), [name.split(", ")[-1] for name in values])
    axis.margins(x=0.15)


STEPS = {  # of the input, and how they are called
    "sigma_max": "the worst step",
    "step_to_random": "at random",
    "step_to_image": "to another image",
    "step_to_whole_image": "all the way there",
    "step_to_orbit": "to another orientation",
    "step_to_whole_orbit": "all the way there",
}


def show_relative(axis: Axes, ratios: pd.DataFrame, looks: dict[str, MethodStyle]) -> None:
    """A line for each of `STEPS`, a marker for each row of a table of multiples of DA."""
    for name, row in ratios[[*STEPS]].iterrows():
        style = looks[name]
        look = dict(color=style.colour, ls="", marker=style.marker, label=name)
        axis.semilogx(row.where(row > 1e-4).to_numpy(), range(len(row)), **look)
    axis.axvline(1, color=METHOD_STYLES["DA"].colour, ls=METHOD_STYLES["DA"].line, label="DA")
    axis.set(yticks=range(len(STEPS)), yticklabels=STEPS.values())
    axis.set_ylim(len(STEPS) - 0.5, -0.5)


def show_decay(axis: Axes, table: pd.DataFrame, looks: dict[str, MethodStyle]) -> None:
    """DA with weight decay as a line, its strength at each point, and other methods as points.

    table: columns what stands on the x and on the y axis, rows the strength or else the method.
    """
    line = table[[isinstance(row, int | float) for row in table.index]].sort_index()
    style = METHOD_STYLES["DA"]
    line_of_da = {"color": style.colour, "ls": style.line, "marker": style.marker}
    axis.semilogx(*line.to_numpy().T, label="DA with weight decay", **line_of_da)
    for strength, place in line.iterrows():
        at: dict[str, Any] = dict(textcoords="offset points", xytext=(5, 4), fontsize="small")
        axis.annotate(f"{strength:g}", tuple(place), **at)
    for name, look in looks.items():
        axis.plot(*table.loc[name], look.marker, color=look.colour, ms=8, label=name)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.margins(0.1)


def show_maps(axes: Sequence[Axes], images: Tensor, maps: Tensor, text: str) -> None:
    """Maps `[n, 1, H, W]` on the middle of their images, with a text on the left."""
    for axis, image, saliency in zip(axes, images, maps, strict=True):
        show_saliency(axis, image[:, 4:-4, 4:-4], saliency[:, 4:-4, 4:-4])
    axes[0].set_ylabel(text, rotation=0, ha="right", va="center")


def show_orbit(axes: Any, acting: Group, image: Tensor, maps: Tensor, logits: Tensor) -> None:
    """Paper Fig. 1: axes `[3, G]`, maps that are turned back `[G, 1, H, W]`, logits `[G, classes]`.

    A column per orientation: what the network looks at, what it predicts, and the former turned
    back.
    """
    for g, (top, middle, bottom) in enumerate(axes.T):
        show_saliency(top, acting.act(g, image), acting.act(g, maps[g]))
        middle.bar(range(logits.shape[1]), logits[g].softmax(0), color="0.3")
        ticks = dict(xticks=[logits[g].argmax().item()], yticks=[0, 1])
        middle.set(ylim=(0, 1.02), box_aspect=1, **ticks)
        show_saliency(bottom, image, maps[g])
    for axis, text in zip(axes[:, 0], ("it looks at", "it predicts", "turned back"), strict=True):
        axis.set_ylabel(text)


def show_orbits(
    axis: Axes, places: Tensor, look: MethodStyle, pictures: list[list[Tensor]]
) -> None:
    """Points `[G, n, 2]`, of the first images as closed lines with pictures around the plot.

    pictures: of each of these images, one for each of its first orientations.
    """
    x, y = places.reshape(-1, 2).T
    axis.scatter(x, y, s=6, color="0.7", linewidths=0)
    for i, line in zip(range(len(pictures)), ("-", "--", ":", "-."), strict=False):
        axis.fill(*places[:, i].T, fill=False, ls=line, lw=1.5, ec=look.colour)
        axis.plot(*places[:, i].T, look.marker, color=look.colour, ms=5)
    ends = [places[g, i] for i, shown in enumerate(pictures) for g in range(len(shown))]
    show_around(axis, torch.stack(ends), [each for shown in pictures for each in shown])


def show_matrix(axis: Axes, matrix: Tensor) -> None:
    """A small square matrix of numbers from 0 to 1, each on its grey, elements g as ticks."""
    axis.imshow(matrix, cmap="gray_r", vmin=0, vmax=1)
    for (row, column), value in zip(
        torch.cartesian_prod(*map(torch.arange, matrix.shape)).tolist(),
        matrix.flatten().tolist(),
        strict=True,
    ):
        colour = "white" if value > 0.5 else "black"
        axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
    ticks = range(len(matrix))
    axis.set(xlabel="$h$", ylabel="$g$", xticks=ticks, yticks=ticks)
    axis.grid(visible=False)


def show_around(axis: Axes, places: Tensor, pictures: list[Tensor], zoom: float = 0.6) -> None:
    """Pictures `[H, W, 3]` around the points of a scatter plot, each joined to its place `[2]`.

    They stand evenly on a square, in the order of the angles of their places, so that the lines
    hardly cross; where the places of several are one point, beside each other.
    """
    axis.set(xticks=[], yticks=[], box_aspect=1, frame_on=False)
    axis.margins(0.22)
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    x = (places[:, 0] - left) / (right - left) - 0.5
    y = (places[:, 1] - low) / (high - low) - 0.5
    angle, even = torch.atan2(y, x), torch.arange(len(places)) * 2 * torch.pi / len(places)
    order = angle.argsort()
    off = angle[order] - even
    even = even + torch.atan2(off.sin().sum(), off.cos().sum())
    for i, at in zip(order.tolist(), even.tolist(), strict=True):
        direction = torch.tensor([math.cos(at), math.sin(at)])
        where = 0.5 + 0.44 * direction / direction.abs().max()
        box = OffsetImage(pictures[i].numpy(), zoom=zoom)
        line = dict(arrowstyle="-", lw=0.5, color="0.5", shrinkB=0)
        look: dict[str, Any] = dict(
            boxcoords="axes fraction", pad=0, bboxprops=dict(lw=0), arrowprops=line
        )
        axis.add_artist(
            AnnotationBbox(box, tuple(places[i].tolist()), tuple(where.tolist()), **look)
        )


def show_answers(pictures: dict[float, Tensor], answers: dict[str, Tensor], right: int) -> None:
    """A row of pictures under drift and, below, what each method calls them over their orbits.

    pictures: an image `[H, W]` for each degree of drift. answers: `[n, G]` for each method. Right
    ones are bold; a grey field holds answers that differ.
    """
    ratios = [5, *[2] * len(answers)]
    _, axes = plt.subplots(
        len(ratios), len(pictures), figsize=(8, 2.3), gridspec_kw=dict(height_ratios=ratios)
    )
    for axis, (beta, picture) in zip(axes[0], pictures.items(), strict=True):
        axis.imshow(picture, cmap="gray_r")
        axis.set_title(f"β = {beta:g}", fontsize="small")
    for line, (method, found) in zip(axes[1:], answers.items(), strict=True):
        line[0].set_ylabel(method, rotation=0, ha="right", va="center")
        for axis, several in zip(line, found.tolist(), strict=True):
            axis.set_facecolor("white" if len({*several}) == 1 else "0.8")
            for place, answer in enumerate(several):
                weight = "bold" if answer == right else "normal"
                x = (place + 0.5) / len(several)
                axis.text(x, 0.5, answer, weight=weight, ha="center", va="center")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(visible=False)
        axis.spines[:].set_visible(False)


def draw_over_beta(axis: Axes, values: pd.Series, **look: Any) -> None:
    """A line per method over the degree of drift, in a band of one standard deviation.

    values: a number for each method, seed, beta.
    """
    for method, style in METHOD_STYLES.items():
        rows = values[method].unstack("beta")
        mean, sd = rows.mean(), rows.std().fillna(0)
        options: dict[str, Any] = (
            dict(marker=style.marker, color=style.colour, ms=4, label=method) | look
        )
        axis.plot(mean.index, mean, style.line, **options)
        axis.fill_between(mean.index, mean - sd, mean + sd, color=style.colour, alpha=0.15, lw=0)


def draw_three_ways(acting: Group, image: Tensor) -> None:
    """A schematic of WT, DA and IR, a row each: what is turned, and what is compared.

    image: `[H, W]`.
    """
    orbit = [*acting.orbit(image)]
    _, axes = plt.subplots(3, 1, figsize=(8, 4.6))
    for axis, (method, style) in zip(axes, METHOD_STYLES.items(), strict=True):
        axis.set(xlim=(0, 16), ylim=(-1.2, 1.2))
        axis.set_axis_off()
        axis.text(0, 0, METHOD_NAMES[method].replace(" (", "\n("), va="center", color=style.colour)
    tied, augmented, regularised = axes
    box = dict(fc="0.95", ec="0.6", pad=4)
    for axis, inputs in ((tied, orbit[:1]), (augmented, orbit[1:2]), (regularised, orbit[1:3])):
        for picture, y in zip(inputs, (0.0,) if len(inputs) == 1 else (0.6, -0.6), strict=True):
            _place(axis, picture, 4.6, y)
            _arrow(axis, 5.2, 6.6, y)
    for g, y in enumerate((0.9, 0.3, -0.3, -0.9)[: acting.order]):
        tied.text(7.6, y, rf"$\langle g_{g} w, x \rangle$", ha="center", va="center", fontsize=9)
    _arrow(tied, 8.7, 9.7, 0)
    tied.text(10.4, 0, "max", ha="center", va="center", bbox=box)
    _arrow(tied, 11, 12, 0)
    tied.text(12.2, 0, "layers above", va="center")
    for y in (0.6, -0.6):
        regularised.text(7.6, y, "network $f$", ha="center", va="center", bbox=box)
        _arrow(regularised, 8.7, 9.7, y)
    regularised.text(9.9, 0.6, "label", va="center")
    regularised.text(9.9, -0.6, "no label", va="center", color="0.5")
    regularised.text(
        12.2, 0, r"+ $\nu \cdot \frac{1}{2} |f(gx) - f(hx)|^2$", va="center", fontsize=11
    )
    augmented.text(7.6, 0, "network $f$", ha="center", va="center", bbox=box)
    _arrow(augmented, 8.7, 9.7, 0)
    augmented.text(9.9, 0, "label", va="center")


def _place(axis: Axes, picture: Tensor, x: float, y: float) -> None:
    box = OffsetImage(1 - _ink(picture), zoom=0.75, cmap="gray", interpolation="nearest")
    axis.add_artist(AnnotationBbox(box, (x, y), pad=0.1))


def _ink(picture: Tensor) -> Tensor:
    """From 0, the least, to 1, the most."""
    return (picture - picture.min()) / (picture.max() - picture.min())


def _arrow(axis: Axes, start: float, end: float, y: float) -> None:
    axis.annotate("", (end, y), (start, y), arrowprops={"arrowstyle": "->", "color": "0.4"})
