"""One style for all figures: a colour, a marker and a line per method."""

import hashlib
import math
from dataclasses import dataclass
from html import escape

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from pandas.io.formats.style import Styler
from torch import Tensor

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
    """Rows of titled images `[H, W]`, a row per group; one with values below 0 has 0 in mid-grey."""
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
        dots = dict(color=looks[name].colour, mfc=fill, ls="")
        axis.plot([place] * len(value), value, marker=looks[name].marker, **dots)
        axis.hlines(value.mean(), place - 0.3, place + 0.3, looks[name].colour)
    axis.set_xticks(range(len(values)), [name.split(", ")[-1] for name in values])
    axis.margins(x=0.15)


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
    axis.set(xticks=[], yticks=[], box_aspect=1)
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
        look = dict(boxcoords="axes fraction", pad=0, bboxprops=dict(lw=0), arrowprops=line)
        axis.add_artist(AnnotationBbox(box, places[i].tolist(), tuple(where.tolist()), **look))


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
    return styled.set_table_attributes('class="dataframe"').set_table_styles([cells])
