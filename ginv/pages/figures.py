"""One style for all figures: a colour, a marker and a line per method."""

import hashlib
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


def panel_grid(
    settings: Settings, rows: int, columns: int, height: float, **options: Any
) -> tuple[Figure, Any]:
    """A figure and its axes `[rows, columns]`; says so where it is not the paper's profile."""
    drawn: dict[str, Any] = dict(figsize=(8, height), sharex=True, squeeze=False) | options
    figure, axes = plt.subplots(rows, columns, **drawn)
    if settings.profile != "paper":
        figure.suptitle(settings.label, fontsize="small", color="grey")
    return figure, axes


def group_columns(settings: Settings, height: float, *labels: str) -> dict[str, list[Axes]]:
    """A titled column of panels per group, a row per label of a y axis."""
    shape = len(labels), len(settings.groups)
    _, axes = panel_grid(settings, *shape, height, sharex="col", sharey="row")
    for label, axis in zip(labels, axes[:, 0], strict=True):
        axis.set_ylabel(label)
    for name, axis in zip(settings.groups, axes[0], strict=True):
        axis.set_title(GROUP_NAMES[name])
    return {name: [*column] for name, column in zip(settings.groups, axes.T, strict=True)}


def group_panels(settings: Settings, height: float = 3.2) -> dict[str, Axes]:
    """A titled panel per group."""
    return {name: axis for name, [axis] in group_columns(settings, height, "").items()}


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


def show_framed(axes: Sequence[Axes], images: Tensor, titles: Sequence[str]) -> None:
    """Images `[n, 1, H, W]`, dark on white, each in a frame; an axis without an image is hidden."""
    for axis, image in zip(axes, images[:, 0], strict=False):
        axis.imshow(image, cmap="gray_r", interpolation="nearest")
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(title, fontsize="medium")
    for axis in axes:
        axis.set(xticks=[], yticks=[], visible=bool(axis.images))
        axis.spines[:].set(visible=True, color="0.8")


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
