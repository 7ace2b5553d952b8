"""Drawings that one page alone has, in the style of `ginv.pages.figures`."""

import math
from collections.abc import Sequence
from itertools import cycle, product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.ticker import LogLocator
from pandas.io.formats.style import Styler
from torch import Tensor

from ginv.groups import Group
from ginv.pages.figures import (
    FORM_STYLES,
    GROUP_NAMES,
    METHOD_NAMES,
    METHOD_STYLES,
    MethodStyle,
    group_columns,
    group_panels,
    panel_grid,
    show_saliency,
    show_table,
)
from ginv.pages.paper import METRICS
from ginv.pages.settings import WEIGHT_DECAYS, Settings
from ginv.runs.nu import TARGET, chosen_nu


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
    "step_to_random": "a random step",
    "step_to_image": "a step towards another image",
    "step_to_whole_image": "all the way to another image",
    "step_to_orbit": "a step towards another orientation",
    "step_to_whole_orbit": "all the way to another orientation",
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


def draw_relative(settings: Settings, means: pd.DataFrame, looks: dict[str, MethodStyle]) -> None:
    """Sensitivities relative to DA, bare and per unit of logit scale.

    means: a row by group and method.
    """
    panels = group_columns(settings, 5, "bare", "per logit scale")
    for name, (above, below) in panels.items():
        ratios = (means.loc[name] / means.loc[name].loc["DA"]).loc[[*looks]]
        show_relative(above, ratios, looks)
        show_relative(below, ratios.div(ratios.logit_norm, axis=0), looks)
        below.set(xlabel="relative to DA")
    _legend_below(above, 5)


def draw_decay(settings: Settings, means: pd.DataFrame, looks: dict[str, MethodStyle]) -> None:
    """Accuracy and SI against sigma_max, of DA with growing weight decay and of other methods.

    means: a row by group and method.
    """
    strengths: dict[str, float] = {"DA": 0}
    strengths |= {f"DA, weight decay {decay:g}": decay for decay in WEIGHT_DECAYS}
    panels = group_columns(settings, 4.6, "accuracy (%)", "SI")
    for name, (above, below) in panels.items():
        table = means.loc[name].rename(index=strengths)
        show_decay(above, table[["sigma_max", "accuracy"]], looks)
        show_decay(below, table[["sigma_max", "SI"]], looks)
        below.set(xlabel="$\\sigma_{max}(J)$")
    _legend_below(above, 4)


def draw_forms(settings: Settings, reached: pd.Series) -> None:
    """SI over the weight of each form of the penalty, that which was chosen larger.

    reached: SI by group, form and nu.
    """
    for name, axis in group_panels(settings).items():
        for form, look in FORM_STYLES.items():
            line, nu = reached[name, form], chosen_nu(name, form)
            axis.semilogx(line, look.line, marker=look.marker, ms=4, color=look.colour, label=form)
            axis.plot(nu, line[nu], look.marker, ms=10, color=look.colour)
        axis.axhline(TARGET, ls="--", color="grey")
        axis.set(xlabel="weight ν of the penalty", ylabel="SI (validation)")
        axis.label_outer()
    _legend_below(axis, 3)


def draw_one_direction(norms: pd.DataFrame) -> None:
    """sigma_max while one direction is forgotten, relative to its start, and the logit error.

    norms: a row a time, a column a start.
    """
    _, axis = plt.subplots(figsize=(6.5, 3))
    looks = zip(("-", "--", "-."), (5, 1.5, 1.5), strict=True)
    for (label, norm), (line, width) in zip(norms.items(), looks, strict=False):
        look: dict[str, Any] = dict(color="black", lw=width, alpha=1.5 / width, label=label)
        axis.plot(norm / norm.iloc[0], line, **look)
    error = np.exp(-2 * norms.index)
    axis.plot(norms.index, error, ":", color="grey", label="logit error, of all three")
    axis.set(xlabel="time, in units of $1/\\epsilon^T\\epsilon$", ylabel="relative to the start")
    axis.legend(bbox_to_anchor=(1, 0.9))


def draw_flow(
    settings: Settings, relative: pd.DataFrame, tied: dict[str, float], steps: int
) -> None:
    """What the flow of all images does to a linear network, and where training would be by then.

    relative: to the start, a row by group and time. tied: sigma_max of the weight-tied network,
    likewise.
    """
    labels = "$\\sigma_{max}$, relative to start", "relative to start"
    for name, (above, below) in group_columns(settings, 4.4, *labels).items():
        curves = relative.loc[name].iloc[1:]  # the start has no place on a logarithmic axis
        above.semilogx(curves["σ max"], "k-", label="the flow")
        above.axhline(tied[name], color="grey", ls=":", label="weight-tied")
        below.loglog(curves["logit error"], "k--", label="logit error")
        below.loglog(curves.distance, "k-.", label="distance from tied")
        for axis in (above, below):
            axis.axvline(steps, color="grey", lw=1)
            axis.legend(loc="lower left")
        above.set(ylim=(0, 1.05))
        below.set(xlabel="time, in units of $1/\\lambda_{max}$", ylim=(1e-16, 10))


def draw_deep(paths: dict[int, pd.DataFrame]) -> None:
    """sigma_max of a deep linear network and of a part of it, relative to the start.

    paths: for each depth a row a step, and a column for each of the two.
    """
    _, axes = plt.subplots(1, 2, figsize=(8, 2.8), sharey=True)
    for axis, column in zip(axes, next(iter(paths.values())), strict=True):
        for (depth, path), line in zip(paths.items(), cycle(("-", "--", "-.", ":")), strict=False):
            axis.plot(path[column] / path[column][0], line, color="black", label=f"depth {depth}")
        axis.set(xlabel="step", title=f"$\\sigma_{{max}}$ {column}")
    axes[0].set_ylabel("relative to start")
    axis.legend(loc="lower left")


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
    """A schematic of WT, DA and IR, a row each: what is turned, and what the loss compares.

    image: `[H, W]`.
    """
    _, turned, again = [*acting.orbit(image)][:3]
    hook = torch.zeros(9, 9)  # a filter that looks different in each orientation
    hook[1:8, 3:5] = hook[1:3, 3:7] = 1
    _, axes = plt.subplots(3, 1, figsize=(7, 4.2), height_ratios=(1.2, 0.7, 1.2))
    for axis, (method, style) in zip(axes, METHOD_STYLES.items(), strict=True):
        axis.set(xlim=(0, 14), ylim=(-1.2, 1.2) if method != "DA" else (-0.7, 0.7))
        axis.set_axis_off()
        axis.text(0, 0, METHOD_NAMES[method].replace(" (", "\n("), va="center", color=style.colour)
    tied, augmented, regularised = axes
    _place(tied, turned, 4.6, 0)
    for g, y in zip(acting.elements, (0.9, 0.3, -0.3, -0.9), strict=False):
        _arrow(tied, 5.2, 6.6, 0, y)
        _place(tied, acting.act(g, hook), 7, y, zoom=1.6)
        _arrow(tied, 7.4, 8.6, y, 0)
    _box(tied, 9.1, 0, "max")
    for axis, picture, y in ((augmented, turned, 0), (regularised, turned, 0.6)):
        _place(axis, picture, 4.6, y)
        _arrow(axis, 5.2, 6.4, y)
    _place(regularised, again, 4.6, -0.6)
    _arrow(regularised, 5.2, 6.4, -0.6)
    for axis, x, y in ((augmented, 7.4, 0), (regularised, 7.4, 0.6), (regularised, 7.4, -0.6)):
        _box(axis, x, y, "network $f$")
        _arrow(axis, x + 1.1, 10.3, y)
    _arrow(tied, 9.6, 10.3, 0)
    tied.text(10.4, 0, "further layers,\nloss against the label", va="center", fontsize=9)
    augmented.text(10.4, 0, "loss against the label", va="center", fontsize=9)
    regularised.text(10.4, 0.6, "loss against the label", va="center", fontsize=9)
    _arrow(regularised, 8.5, 10.3, 0.6, -0.4)
    text = r"plus $\nu \cdot \frac{1}{2} \Vert f(gx) - f(hx) \Vert^2$"
    regularised.text(10.4, -0.6, text, va="center", fontsize=9)


WAYS = {  # to invariance, and what they are compared with
    "DA": METHOD_STYLES["DA"],
    "DA, same budget": MethodStyle(METHOD_STYLES["DA"].colour, "D", ""),
    "IR": METHOD_STYLES["IR"],
    "gradients": MethodStyle("#56B4E9", "P", ""),
    "DA, one view": MethodStyle(METHOD_STYLES["DA"].colour, "v", ""),
    "symmetry decay": MethodStyle("#CC79A7", "*", ""),
    "symmetry decay, one view": MethodStyle("#CC79A7", "X", ""),
    "combined": MethodStyle("#222222", "p", ""),
    "WT": METHOD_STYLES["WT"],
}


def draw_ways(
    settings: Settings, networks: pd.DataFrame, starts: dict[str, str], base: str
) -> None:
    """Accuracy against SI over distinct pairs, a marker per network; dashed: the mean of `base`.

    networks: a row by group, recipe and seed. starts: which recipes begin at no random weights, and
    are open.
    """
    figure, axes = plt.subplots(1, len(settings.groups), figsize=(8, 4.4), squeeze=False)
    for name, axis in zip(settings.groups, axes.flat, strict=True):
        for recipe, look in WAYS.items():
            rows, fill = networks.loc[name, recipe], "none" if recipe in starts else look.colour
            dots: dict[str, Any] = dict(color=look.colour, mfc=fill, ls="", ms=7, label=recipe)
            axis.plot(rows.SI_distinct, rows.accuracy, look.marker, **dots)
        mean = networks.loc[name, base].accuracy.mean()
        axis.axhline(mean, color=METHOD_STYLES["DA"].colour, ls="--", lw=1)
        axis.axvline(TARGET, color="0.5", ls=":", lw=1)
        axis.set(xlabel="SI over distinct pairs", title=GROUP_NAMES[name], xlim=(0, 1.03))
    axes[0, 0].set_ylabel("accuracy over the orbit (%)")
    handles = axis.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, fontsize="small")


def draw_lost(lost: dict[str, pd.DataFrame]) -> None:
    """Points of accuracy lost: a panel a group, a line a setting, a marker for each of `WAYS`."""
    settings = list(dict.fromkeys(name for table in lost.values() for name in table.index))
    size = (8, 0.32 * len(settings) + 1.2)
    figure, axes = plt.subplots(1, len(lost), figsize=size, sharex=True, squeeze=False)
    for axis, (title, table) in zip(axes.flat, lost.items(), strict=True):
        for i, (way, points) in enumerate(table.items()):
            look, places = WAYS[str(way)], [place + 0.15 * (i - 1) for place in range(len(points))]
            axis.plot(points, places, look.marker, color=look.colour, ls="", label=way)
        axis.axvline(0, color=METHOD_STYLES["DA"].colour, ls="--", lw=1)
        axis.set(title=title, xlabel="points lost", yticks=range(len(table)))
        axis.set_yticklabels(table.index)
        axis.set_ylim(len(table) - 0.5, -0.5)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)


def draw_travel(travelled: dict[float, pd.DataFrame], title: str) -> None:
    """How much of each layer is not symmetric, over training: solid with a decay, dashed without.

    travelled: by the strength of the decay, a row an epoch, a column a layer.
    """
    _, axis = plt.subplots(figsize=(6, 3.2))
    for strength, layers in travelled.items():
        for i, (layer, share) in enumerate(layers.items()):
            colour = plt.get_cmap("viridis")(i / len(layers.columns))
            label = str(layer).removesuffix(".weight") if strength else None
            axis.plot(share, "-" if strength else "--", color=colour, label=label)
    axis.set(xlabel="epoch", ylabel="not symmetric", ylim=(0, 1), title=title)
    axis.legend(fontsize="small", ncols=2)


def draw_fronts(name: str, fronts: dict[str, pd.DataFrame]) -> None:
    """Accuracy against SI over nu: that of IR beside each change of it, and the accuracy of DA."""
    changes = [each for each in fronts if each not in ("DA", "IR")]
    figure, axes = plt.subplots(3, 3, figsize=(8, 6.6), sharex=True, sharey=True)
    changed = MethodStyle("#222222", "D", "-")
    for axis, change in zip(axes.flat, changes, strict=True):
        for each, look in (("IR", METHOD_STYLES["IR"]), (change, changed)):
            curve, drawn = fronts[each], dict(marker=look.marker, color=look.colour)
            axis.plot(curve.SI, curve.accuracy, look.line, **drawn)
        axis.axhline(fronts["DA"].accuracy.item(), color=METHOD_STYLES["DA"].colour, ls="--")
        axis.axvline(TARGET, color="0.5", ls=":", lw=1)
        axis.set_title(change, fontsize="medium")
    figure.supxlabel("saliency invariance SI")
    figure.supylabel("accuracy (%)")
    figure.suptitle(GROUP_NAMES[name])


def draw_partners(settings: Settings, partners: pd.DataFrame) -> None:
    """How units agree with their partners, and with themselves, layer by layer.

    partners: columns partner and itself, rows group, network, layer (from 0).
    """
    looks = WAYS | {"random weights": MethodStyle("0.6", "v", "")}
    figure, axes = panel_grid(settings, 1, len(settings.groups), 3.4, sharey=True)
    for name, axis in zip(settings.groups, axes.flat, strict=True):
        for key, rows in partners.loc[name].groupby(level=0):
            look, layers = looks[key], rows.index.get_level_values("layer") + 1
            axis.plot(layers, rows.partner, look.marker, ls="-", color=look.colour, label=key)
            axis.plot(layers, rows.itself, look.marker, ls=":", color=look.colour, mfc="none")
        axis.set(xlabel="hidden layer", title=GROUP_NAMES[name], xticks=layers, ylim=(-0.05, 1.05))
    axes[0, 0].set_ylabel("correlation of units over the orbit")
    handles = axis.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, fontsize="small")


def draw_sensitivity(settings: Settings, ratios: dict[tuple[str, str], pd.DataFrame]) -> None:
    """sigma_max over that of a reference, bare and over the size of the logits: ranges of seeds.

    ratios: a row a seed, by group and recipe.
    """
    words = {"sigma_max": "σ_max", "sigma_max_over_scale": "σ_max over logit scale"}
    shape = len(settings.groups), len(words)
    _, axes = panel_grid(settings, *shape, 3.2 * len(settings.groups), sharey=True, sharex=False)
    recipes = list(dict.fromkeys(recipe for _, recipe in ratios))
    for row, name in zip(axes, settings.groups, strict=True):
        for axis, metric in zip(row, words, strict=True):
            for i, recipe in enumerate(recipes):
                ratio, look = ratios[name, recipe][metric], WAYS[recipe]
                axis.plot([ratio.min(), ratio.max()], [i, i], color=look.colour)
                axis.plot(ratio.mean(), i, look.marker, color=look.colour)
            axis.axvline(1, color="0.5", lw=1)
            axis.set(xscale="log", xlim=(0.03, 60))
            axis.set_title(f"{GROUP_NAMES[name]}: {words[metric]}", fontsize="medium")
            axis.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
            axis.minorticks_off()
            axis.set(yticks=range(len(recipes)), yticklabels=recipes)


def show_readings(rows: pd.DataFrame, metric: str, methods: Sequence[str], caption: str) -> Styler:
    """A metric under each reading, below its values in this book; * where the change is large.

    rows: columns choice, reading, group, method, metric, value, default and large.
    """
    rows = rows[(rows.metric == metric) & rows.method.isin(methods)]
    ours = rows.assign(choice="this book", reading="", value=rows.default, large=False)
    key = ["choice", "reading", "group", "method"]
    rows = pd.concat([ours, rows]).drop_duplicates(key)
    rows["text"] = rows.value.map("{:#.3g}".format) + rows.large.map({True: " *", False: ""})
    order = pd.MultiIndex.from_frame(rows[key[:2]].drop_duplicates())
    columns = [*product(rows.group.unique(), methods)]
    shown = rows.set_index(key).text.unstack([2, 3]).loc[order, columns]
    return show_table(shown, f"{caption}; * where the change is large")


def draw_choices(
    settings: Settings,
    rows: pd.DataFrame,
    below: Sequence[str],
    above: Sequence[str],
    large: float,
) -> Figure:
    """What each choice changes, a panel a metric, in units of the error; a band for what is small.

    rows: columns choice, group, method, metric and units. below, above: the choices, from the
    bottom up, on both sides of a line.
    """
    choices = [*below, *above]
    figure, axes = plt.subplots(1, len(METRICS), figsize=(9, 4.8), sharex=True, sharey=True)
    for metric, axis in zip(METRICS, axes, strict=True):
        axis.axvspan(-large, large, color="0.9", lw=0)
        axis.axhline(len(below) - 0.5, color="0.3", lw=0.8)
        for (name, method), part in rows[rows.metric == metric].groupby(["group", "method"]):
            style, up = METHOD_STYLES[method], 0.15 if name == "R4" else -0.15
            fill = style.colour if up > 0 else "white"
            look: dict[str, Any] = dict(color=style.colour, mfc=fill, ls="", ms=5)
            places = [choices.index(choice) + up for choice in part.choice]
            axis.plot(part.units, places, style.marker, label=f"{method} {name}", **look)
        axis.set(title=metric, yticks=range(len(choices)), yticklabels=choices)
        axis.set_xscale("symlog", linthresh=1, linscale=0.4)
        axis.set_xticks([-100, -10, 10, 100], ["-100", "-10", "10", "100"], fontsize="small")
    handles = axes[0].get_legend_handles_labels()
    legend = figure.legend(*handles, loc="outside lower center", ncols=6)
    legend.set_title(f"change, in units of the error ({settings.profile} profile)")
    return figure


def draw_search(
    settings: Settings,
    search: pd.DataFrame,
    back: pd.DataFrame,
    ours: pd.Series,
    paper: pd.DataFrame,
) -> None:
    """SI of DA under each reading, of one group against the other, and the paper's as a box.

    search, back: all readings and those that turn maps back, a row each, a column a group. paper:
    columns mean and sd, a row a group.
    """
    _, axis = plt.subplots(figsize=(6, 4.4))
    xy = [settings.groups[0], settings.groups[-1]]  # the same twice where there is one group
    for dots, grey, label in (
        (search, "0.75", "maps not turned back"),
        (back, "0.35", "turned back"),
    ):
        axis.plot(*dots[xy].to_numpy().T, ".", ms=3, color=grey, label=label)
    axis.plot(*ours[xy], "o", color=METHOD_STYLES["DA"].colour, label="this book")
    corner, size = (paper["mean"] - paper["sd"])[xy].to_numpy(), 2 * paper["sd"][xy]
    axis.add_patch(plt.Rectangle(corner, *size, fill=False, lw=2, label="the paper, ±"))
    axis.set(xlabel=f"SI of DA on {xy[0]}", ylabel=f"SI of DA on {xy[1]}")
    axis.legend()


def _legend_below(axis: Axes, columns: int) -> None:
    """What the lines of an axis are, for all panels of its figure."""
    handles = axis.get_legend_handles_labels()
    axis.figure.legend(*handles, loc="outside lower center", ncols=columns)


def _place(axis: Axes, picture: Tensor, x: float, y: float, zoom: float = 0.75) -> None:
    box = OffsetImage(1 - _ink(picture), zoom=zoom, cmap="gray", interpolation="nearest")
    axis.add_artist(AnnotationBbox(box, (x, y), pad=0.1))


def _box(axis: Axes, x: float, y: float, text: str) -> None:
    look = dict(fc="0.95", ec="0.6", pad=4)
    axis.text(x, y, text, ha="center", va="center", fontsize=9, bbox=look)


def _ink(picture: Tensor) -> Tensor:
    """From 0, the least, to 1, the most."""
    return (picture - picture.min()) / (picture.max() - picture.min())


def _arrow(axis: Axes, start: float, end: float, y: float, to: float | None = None) -> None:
    look = {"arrowstyle": "->", "color": "0.4"}
    axis.annotate("", (end, y if to is None else to), (start, y), arrowprops=look)
