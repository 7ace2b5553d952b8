"""A figure to step through in the page: no kernel, nothing from outside."""

import base64
import html
import io
import json
from collections.abc import Iterator
from importlib.resources import files

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from ginv.groups import Group
from ginv.measurement import orbit_logits, orbit_maps
from ginv.measures import saliency_invariance
from ginv.pages.figures import METHOD_STYLES, saliency_picture
from ginv.recipe import METHODS
from ginv.refuse import require

COLUMNS = 16  # of a sheet of pictures


def stepper(
    values: pd.DataFrame,
    pictures: list[Tensor],
    caption: str,
    formats: dict[str, str],
    maps: dict[str, list[Tensor]] | None = None,
) -> str:
    """HTML of a figure to step through, of pictures and numbers that were made beforehand.

    values: a row per state; the last level of its index is a slider, those before it are lists to
    choose from. Its columns are (name, method), with a format for each name; numbers, from 0 up,
    are also drawn as bars, the largest of a name full. pictures `[36, 36, 3]`, 0 to 1: one per
    state, and in `maps` one per state for each method. Where scripts are off it shows nothing, so a
    static figure has to stand beside it. Raises ValueError for numbers that are not finite.
    """
    numeric = values.select_dtypes("number")
    fits = bool(np.isfinite(numeric.to_numpy(float)).all())
    require(fits, "values", numeric.to_numpy().tolist(), "finite numbers, or words")
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
        shares = [
            round(value / largest[name], 3) if name in largest else 0 for name, value in cells
        ]
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
    script = files("ginv.pages").joinpath("stepper.html").read_text(encoding="utf-8")
    return "<div class='ginv-stepper' data-stepper='{}'></div>\n{}".format(
        text.replace("'", "&#39;"), script
    )


ORBITS = (
    "The large image is what the networks are given. In red is what each of them looks at, turned "
    "back to the first orientation. Below it stand its answer, and the SI of the digit over all "
    "orientations, which does not change as you turn it. The digits come in the order in which IR "
    "and DA differ."
)


def orbit_stepper(
    models: dict[tuple[str, str], nn.Module], groups: list[Group], images: Tensor, labels: Tensor
) -> str:
    """HTML of a figure to step through the orbits of some digits `[n, 1, 36, 36]`.

    models: one for each name of a group and method. The first digit is that where the SI of IR and
    of DA differ most.
    """
    si = {key: saliency_invariance(maps) for key, maps in _maps(models, groups, images, labels)}
    contrast = si[groups[0].name, "IR"] - si[groups[0].name, "DA"]
    order = contrast.argsort(descending=True)
    images, labels = images[order], labels[order]
    maps = dict(_maps(models, groups, images, labels))
    pictures: list[Tensor] = []
    looks: dict[str, list[Tensor]] = {method: [] for method in METHODS}
    parts = []
    for group in groups:
        by_digit = group.orbit(images).transpose(0, 1)  # [n, G, 1, 36, 36]
        pictures += map(saliency_picture, by_digit.flatten(0, 1))
        cells: dict[tuple[str, str], list] = {}
        for method in METHODS:
            key = group.name, method
            seen = maps[key].transpose(0, 1).flatten(0, 1)
            looks[method] += map(saliency_picture, images.repeat_interleave(group.order, 0), seen)
            logits = orbit_logits(models[key], images, group).transpose(0, 1).flatten(0, 1)
            p, answer = logits.softmax(1).max(1)
            cells["answer", method] = [*map(str, answer.tolist())]
            cells["probability", method] = p.tolist()
            cells["SI", method] = si[key][order].repeat_interleave(group.order).tolist()
        size, unit = (360, "°") if group.name == "R4" else (36, " pixels")
        steps = [f"{size // group.order * g}{unit}" for g in group.elements]
        levels = {"group": [group.name], "digit": labels.tolist(), "orientation": steps}
        index = pd.MultiIndex.from_product(levels.values(), names=levels)
        parts.append(pd.DataFrame(cells, index))
    states = pd.concat(parts)[["answer", "probability", "SI"]]
    formats = {"answer": "{}", "probability": "{:.0%}", "SI": "{:.2f}"}
    return stepper(states, pictures, ORBITS, formats, looks)


def _maps(
    models: dict[tuple[str, str], nn.Module], groups: list[Group], images: Tensor, labels: Tensor
) -> Iterator[tuple[tuple[str, str], Tensor]]:
    """Saliency maps over the orbit, for each group and method."""
    for group in groups:
        for method in METHODS:
            key = group.name, method
            yield key, orbit_maps(models[key], images, labels, group)


def _as_png(tiles: Tensor) -> str:
    """A sheet of pictures `[n, H, W, 3]`, bytes, as the address of a PNG with a palette."""
    blank = tiles.new_zeros(-len(tiles) % COLUMNS, *tiles.shape[1:])
    sheet = (
        torch.cat([tiles, blank])
        .unflatten(0, (-1, COLUMNS))
        .transpose(1, 2)
        .flatten(2, 3)
        .flatten(0, 1)
    )
    file = io.BytesIO()
    Image.fromarray(sheet.numpy()).quantize(128, dither=Image.Dither.NONE).save(
        file, "PNG", optimize=True
    )
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
