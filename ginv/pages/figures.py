"""One style for all figures: a colour, a marker and a line per method."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.ticker import LogLocator
from pandas.io.formats.style import Styler
from torch import Tensor

from ginv.groups import Group
from ginv.pages.settings import Settings


@dataclass(frozen=True)
class MethodStyle:
    colour: str  # from Okabe and Ito's palette, safe for colour-blind readers
    marker: str
    line: str


METHOD_STYLES = {
    "WT": MethodStyle("#0072B2", "s", "-"),
    "DA": MethodStyle("#D55E00", "o", "--"),
    "IR": MethodStyle("#009E73", "^", "-."),
}
FORM_STYLES = {  # of IR with the forms of its penalty
    "logit": METHOD_STYLES["IR"],
    "kl": MethodStyle("#CC79A7", "v", ":"),
    "normalised": MethodStyle("#222222", "D", "--"),
}
METHOD_NAMES = {
    "WT": "weight-tying (WT)",
    "DA": "data augmentation (DA)",
    "IR": "invariance regularisation (IR)",
}
GROUP_NAMES = {"R4": "Rotations R4", "T3": "Translations T3"}


def use_style() -> None:
    """Set matplotlib up for the book.

    The white background is part of a figure, so dark pages keep it readable. In a notebook figures
    go into the page, whatever MPLBACKEND says.
    """
    if (shell := get_ipython()) is not None:
        shell.run_line_magic("matplotlib", "inline")
        shell.run_line_magic("config", "InlineBackend.figure_format = 'retina'")  # twice the pixels
    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "font.size": 10,
            "legend.frameon": False,
            "image.cmap": "gray",
        }
    )


def group_panels(settings: Settings, height: float = 3.2) -> dict[str, Axes]:
    """A figure with a titled panel per group; one that is not the paper's profile says so."""
    figure, axes = plt.subplots(
        1, len(settings.groups), figsize=(8, height), sharey=True, squeeze=False
    )
    for axis, name in zip(axes.flat, settings.groups, strict=True):
        axis.set_title(GROUP_NAMES[name])
    if settings.profile != "paper":
        figure.suptitle(settings.label, fontsize="small", color="grey")
    return dict(zip(settings.groups, axes.flat, strict=True))


def group_columns(settings: Settings, height: float, *labels: str) -> dict[str, list[Axes]]:
    """The same with a row of panels per label of a y axis."""
    shape: dict[str, Any] = dict(figsize=(8, height), sharex="col", sharey="row", squeeze=False)
    figure, axes = plt.subplots(len(labels), len(settings.groups), **shape)
    for label, axis in zip(labels, axes[:, 0], strict=True):
        axis.set_ylabel(label)
    for name, axis in zip(settings.groups, axes[0], strict=True):
        axis.set_title(GROUP_NAMES[name])
    if settings.profile != "paper":
        figure.suptitle(settings.label, fontsize="small", color="grey")
    return {name: [*column] for name, column in zip(settings.groups, axes.T, strict=True)}


def panel_grid(
    settings: Settings, rows: int, columns: int, height: float, **options: Any
) -> tuple[Figure, Any]:
    """A figure and its axes `[rows, columns]`; says so where it is not the paper's profile."""
    drawn: dict[str, Any] = dict(figsize=(8, height), sharex=True, squeeze=False) | options
    figure, axes = plt.subplots(rows, columns, **drawn)
    if settings.profile != "paper":
        figure.suptitle(settings.label, fontsize="small", color="grey")
    return figure, axes


def plot_methods(panels: dict[str, Axes], runs: pd.DataFrame) -> None:
    """Accuracy against SI, a marker per run.

    runs: columns accuracy and SI, rows group, method, seed.
    """
    for name, axis in panels.items():
        for method, style in METHOD_STYLES.items():
            points = runs.loc[name, method]
            axis.plot(
                points.SI,
                points.accuracy,
                style.marker,
                color=style.colour,
                label=METHOD_NAMES[method],
            )
        axis.set(xlabel="saliency invariance SI", xlim=(0, 1.05))
    first, *_, last = [next(iter(panels.values())), *panels.values()]
    first.set_ylabel("accuracy over the orbit (%)")
    last.legend(loc="lower left")


def saliency_picture(image: Tensor, saliency: Tensor | None = None) -> Tensor:
    """An image in light grey and, over it in red, its saliency map, if any.

    Both `[1, H, W]` -> `[H, W, 3]`, 0 to 1.
    """
    ink = (image - image.min()) / (image.max() - image.min()).clamp(min=1e-12)
    strength = torch.zeros_like(image) if saliency is None else saliency
    strength = (strength / strength.max().clamp(min=1e-12)).sqrt()
    red = torch.tensor([0.8, 0.0, 0.1]).view(3, 1, 1)
    return torch.lerp((1 - 0.5 * ink).expand(3, -1, -1), red, strength).permute(1, 2, 0)


def show_saliency(axis: Axes, image: Tensor, saliency: Tensor | None = None) -> None:
    """`saliency_picture` on an axis."""
    axis.imshow(saliency_picture(image, saliency), interpolation="nearest")  # small as a PNG
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


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


def show_framed(axes: Sequence[Axes], images: Tensor, titles: Sequence[str]) -> None:
    """Images `[n, 1, H, W]`, dark on white, each in a frame; an axis without an image is hidden."""
    for axis, image in zip(axes, images[:, 0], strict=False):
        axis.imshow(image, cmap="gray_r", interpolation="nearest")
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(title, fontsize="medium")
    for axis in axes:
        axis.set(xticks=[], yticks=[], visible=bool(axis.images))
        axis.spines[:].set(visible=True, color="0.8")


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


def show_table(table: pd.DataFrame, caption: str, precision: int = 3) -> Styler:
    """A table as a page shows it: numbers rounded, with a caption that says what was run."""
    content = f"{caption}{precision}{table.to_csv()}"  # names its cells: the same page twice
    styled = Styler(table, uuid=hashlib.sha256(content.encode()).hexdigest()[:8])
    styled = styled.format(precision=precision, na_rep="–", escape="html")
    for axis in (0, 1):
        styled = styled.format_index(escape="html", axis=axis)
    styled = styled.set_caption(escape(caption))
    props = "padding: 0.1em 0.4em; text-align: right; font-size: 0.9em; white-space: nowrap"
    cells = {"selector": "th, td", "props": props}
    heads = {"selector": "th.col_heading", "props": "white-space: normal"}  # at its spaces
    return styled.set_table_attributes('class="dataframe"').set_table_styles([cells, heads])
