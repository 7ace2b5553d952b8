"""One style for all figures: a colour, a marker and a line per method, told apart without colour."""

from __future__ import annotations

import base64
import html
import io
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.axes import Axes
from pandas.io.formats.style import Styler
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from ginv.settings import Settings


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
METHOD_NAMES = {
    "WT": "weight-tying (WT)",
    "DA": "data augmentation (DA)",
    "IR": "invariance regularisation (IR)",
}
COLUMNS = 16  # of a sheet of pictures
GROUP_NAMES = {"R4": "Rotations R4", "T3": "Translations T3"}


def use_style() -> None:
    """Set matplotlib up for the book. The white background is part of a figure, so dark pages keep it readable."""
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
    """A figure with a titled panel per group of the settings; one that is not the paper's profile says so."""
    figure, axes = plt.subplots(1, len(settings.groups), figsize=(8, height), sharey=True, squeeze=False)
    for axis, name in zip(axes.flat, settings.groups, strict=True):
        axis.set_title(GROUP_NAMES[name])
    if settings.profile != "paper":
        figure.suptitle(settings.label, fontsize="small", color="grey")
    return dict(zip(settings.groups, axes.flat, strict=True))


def plot_methods(panels: dict[str, Axes], runs: pd.DataFrame) -> None:
    """Accuracy against SI, a marker per run; runs: columns accuracy and SI, rows group, method, seed."""
    for name, axis in panels.items():
        for method, style in METHOD_STYLES.items():
            points = runs.loc[name, method]
            axis.plot(points.SI, points.accuracy, style.marker, color=style.colour, label=METHOD_NAMES[method])
        axis.set(xlabel="saliency invariance SI", xlim=(0, 1.05))
    first, *_, last = [next(iter(panels.values())), *panels.values()]
    first.set_ylabel("accuracy over the orbit (%)")
    last.legend(loc="lower left")


def saliency_picture(image: Tensor, saliency: Tensor | None = None) -> Tensor:
    """An image `[1, H, W]` in light grey and, over it in red, its saliency map `[1, H, W]`, if any -> `[H, W, 3]`."""
    ink = (image - image.min()) / (image.max() - image.min())
    strength = torch.zeros_like(image) if saliency is None else saliency
    strength = (strength / strength.max().clamp(min=1e-12)).sqrt()
    red = torch.tensor([0.8, 0.0, 0.1]).view(3, 1, 1)
    return torch.lerp((1 - 0.5 * ink).expand(3, -1, -1), red, strength).permute(1, 2, 0)


def show_saliency(axis: Axes, image: Tensor, saliency: Tensor | None = None) -> None:
    """`saliency_picture` on an axis."""
    axis.imshow(saliency_picture(image, saliency), interpolation="nearest")  # small as a PNG
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def show_table(table: pd.DataFrame, caption: str, precision: int = 3) -> Styler:
    """A table as a page shows it: numbers rounded, with a caption that says what was run."""
    styled = table.style.format(precision=precision, na_rep="–").set_caption(caption)
    props = "padding: 0.1em 0.4em; text-align: right; font-size: 0.9em; white-space: nowrap"
    cells = {"selector": "th, td", "props": props}
    return styled.set_table_attributes('class="dataframe"').set_table_styles([cells])


def touch(
    values: pd.DataFrame,
    pictures: list[Tensor],
    caption: str,
    formats: dict[str, str],
    maps: dict[str, list[Tensor]] | None = None,
) -> str:
    """HTML of a figure to step through: pictures and numbers made beforehand, no kernel, nothing from outside.

    values: a row per state; the last level of its index is a slider, those before it are lists to choose from. Its
    columns are (name, method), with a format for each name; numbers, from 0 up, are also drawn as bars, the largest of
    a name full. pictures `[36, 36, 3]`, 0 to 1: one per state, and in `maps` one per state for each method. Where
    scripts are off it shows nothing, so a static figure has to stand beside it.
    """
    rows, heads = (list(values.columns.unique(level)) for level in (0, 1))
    *choices, slider = values.index.names
    tiles = torch.stack([tile.cpu() for row in (pictures, *(maps or {}).values()) for tile in row])
    tiles, numbers = (255 * tiles).round().byte().unique(dim=0, return_inverse=True)
    largest = values.select_dtypes("number").max().groupby(level=0).max()
    states: dict[str, list] = {}
    for key, of_tiles, (_, cells) in zip(
        values.index, numbers.view(-1, len(values)).T.tolist(), values.iterrows(), strict=True
    ):
        *chosen, step = map(str, key)
        cells = [(name, cells[name, head]) for name in rows for head in heads]
        texts = [formats[name].format(value) for name, value in cells]
        shares = [round(value / largest[name], 3) if name in largest else 0 for name, value in cells]
        states.setdefault("|".join(chosen), []).append([step, of_tiles, texts, shares])
    data = {
        "sheet": _as_png(tiles),
        "columns": COLUMNS,
        "choices": [[name, [*map(str, values.index.unique(name))]] for name in choices],
        "slider": slider,
        "heads": heads,
        "colours": [METHOD_STYLES[head].colour for head in heads],
        "maps": "looks at" if maps else "",
        "rows": rows,
        "states": states,
        "caption": caption,
    }
    text = html.escape(json.dumps(data, ensure_ascii=False, separators=(",", ":")), quote=False)
    script = files("ginv").joinpath("touch.html").read_text(encoding="utf-8")
    return "<div class='ginv-touch' data-touch='{}'></div>\n{}".format(text.replace("'", "&#39;"), script)


def _as_png(tiles: Tensor) -> str:
    """A sheet of pictures `[n, H, W, 3]`, bytes, as the address of a PNG with a palette."""
    blank = tiles.new_zeros(-len(tiles) % COLUMNS, *tiles.shape[1:])
    sheet = torch.cat([tiles, blank]).unflatten(0, (-1, COLUMNS)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
    file = io.BytesIO()
    Image.fromarray(sheet.numpy()).quantize(128, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
