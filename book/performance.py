# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What it costs
#
# Stored results are believed, computed ones are checked. So the whole paper should be cheap enough to be done again by whoever
# reads it, on whatever computer is at hand. This page says what that takes, how near it comes to what the machine can do, and
# what it will take for more seeds, more images or larger groups.
#
# **What you will see**
#
# - The operations of a training, counted.
# - A table of speeds, each against something that was timed in the same minutes: the machine's own matrix product, the
#   loop that one would write first, captum.
# - Where the time goes, and how it grows.
# - What reduced precision would save and what it would move.
#
# Times differ from run to run, and a page that takes its own would never come out the same twice. So this one reads them:
# `make bench` measures, and writes `results/bench.csv` and `results/timings.csv`. Only the operations are counted here.

# %% tags=["remove-cell"]
import subprocess
import sys
from importlib.util import find_spec

# written by `make publish-url`
package = ""  # not published yet: install ginv from a clone

if find_spec("ginv") is None:  # a notebook opened alone, as on Colab
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    subprocess.run([*pip, package], check=True)

# %% tags=["parameters"]
profile = "paper"  # "paper" is the full experiment, "quick" a look in minutes
group = "both"  # "R4", "T3" or "both"
seeds = None  # a list such as [0, 1]; None takes those of the profile
device = "auto"  # "auto", "cpu" or "cuda"
results = "results"  # folder for the numbers of this page

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown

import ginv
from ginv import costs
from ginv.figures import METHOD_STYLES, show_table, use_style
from ginv.training import METHODS

ginv.refuse_unknown(In)  # a parameter by a wrong name
settings = ginv.Settings(profile, group, seeds, device, results)
use_style()
Markdown(f"Work is counted for {settings.label}.")

# %%
folder = Path(results)
if not (folder / "bench.csv").is_file():
    raise FileNotFoundError(
        f"no {folder / 'bench.csv'}; `make bench` writes it"
    )
bench = pd.read_csv(folder / "bench.csv", index_col="item")
timings = pd.read_csv(folder / "timings.csv")

# %% [markdown]
# ## Operations
#
# The work of a perceptron is in its matrix products. We count their multiplications and additions: forward, backward for the
# weights, backward for the inputs of all layers but the first, and a forward pass of the validation images after each
# epoch. Both views that IR takes of an image count.
#
# The count is that of the networks as they are defined: whole images of $36 \times 36$ pixels, and weight-tying with
# every $gx$ multiplied out. What `ginv` does may be less. Its training leaves out the border, in which all images are equal.
# So a training can come out faster than its operations at full speed; what is compared is the time for the same result.

# %%
counted = pd.DataFrame(
    {
        name: {
            method: costs.training_operations(settings.run(name, method, 0))
            for method in METHODS
        }
        for name in settings.groups
    }
)
relative = counted / counted.loc["DA"]
both = pd.concat(
    {"operations (10¹²)": counted / 1e12, "over DA": relative}, axis=1
)
show_table(
    both, f"One training run of {settings.run('R4', 'DA', 0).epochs} epochs", 2
)

# %% [markdown]
# ## Speeds
#
# Each row is one piece of work done in two ways, ours and a reference, in turn, on all the threads that there are. Its
# ratio is the reference's time over ours: how many times faster ours is. It is the median over repeats, with the smallest and
# the largest beside it.
#
# - *Training*: seconds for an epoch of a run, stacked over four seeds, two stacks side by side; shuffling,
#   augmentation and validation included. The reference is the counted operations at the speed of a float32 product of
#   $4096 \times 4096$ matrices, so the ratio is the share of that speed that is reached.
# - *A plain loop*: a `DataLoader`, torchvision's transforms, one network at a time. It is in
#   `benchmarks/naive_training.py`.
# - *Maps*: integrated gradients of 50 steps, against captum's.
# - *Measure*: `ginv.measure`, against `benchmarks/naive_measure.py`, which takes captum's maps and then goes through all
#   pairs of the orbit. Its memory is what `ginv.measure` adds to a process at its peak, against what the saliency
#   maps of all those images would fill if they were kept.
# - *Growth*: seconds at the end of a curve that is drawn below, against the straight line through its start, of which
#   it has to keep within a tenth.
# - *Book*: `make book` for the paper itself, Table 1 to Figure 5, the proposition and the ledger. Here the reference is a
#   limit that we set for a machine with two cores.

# %% tags=["hide-input"]
paired = timings[timings.n.isna()]
ratios = (paired.reference / paired.ours).groupby(paired.item)
table = bench.assign(smallest=ratios.min(), largest=ratios.max())
table = table[
    ["ours", "reference", "ratio", "smallest", "largest", "target", "met"]
]
measured = table[table.ratio.notna()].fillna({"met": ""})
show_table(measured, f"On {timings.threads.iloc[0]} threads", 3)

# %% tags=["hide-input"]
aimed = measured[measured.target.notna()]
missed = aimed[aimed.met == "no"]
lines = [f"Of {len(aimed)} targets {len(aimed) - len(missed)} are met."]
lines += [
    f"- Not met: {item}: {row.ratio:.3g}, where {row.target:.3g} was the aim."
    for item, row in missed.iterrows()
]
lines += [
    f"- {reason[0].upper()}{reason[1:]}: {'; '.join(rows.index)}."
    for reason, rows in table[table.ratio.isna()].groupby("met")
]
Markdown("\n".join(lines))

# %% [markdown]
# ## Where the time goes
#
# Speed times work: what Table 1 and Figure 5 take from nothing, stage by stage, by the speeds above. A training of a run is
# as long as its epochs; *measuring* is `ginv.measure` on the orbit of every test image, for each network, nearly all of it
# maps; *pages* is what the book takes when everything is stored: reading, drawing, and all that other
# chapters compute for themselves.


# %%
def training_minutes(runs):
    per_epoch = [
        bench.ours[f"training {run.method} {run.group}"] for run in runs
    ]
    return sum(s * run.epochs for s, run in zip(per_epoch, runs)) / 60


spectral = settings.spectral_runs()
minutes = {
    f"training {method}": training_minutes(
        [run for run in settings.runs() if run.method == method]
    )
    for method in METHODS
}
minutes["training, Figure 5"] = training_minutes(spectral)

# %%
seen = dict.fromkeys(settings.runs(), settings.test_images)
seen |= dict.fromkeys(spectral, settings.test_images // 5)
per_map = bench.ours["measure R4, 1000 images"] / 4000
maps = sum(ginv.group_named(run.group).order * n for run, n in seen.items())
minutes["measuring"] = maps * per_map / 60
if settings.profile == "paper":
    minutes["pages"] = bench.ours["book from a full store, minutes"]
minutes = pd.Series(minutes).dropna()

# %% {"tags": ["hide-input"], "mystnb": {"figure": {"caption": "Minutes that each stage takes, from nothing: the training of Table 1 by method and of the further runs of Figure 5, measuring them on the test images, and the pages themselves where that was measured.", "name": "fig-stages"}, "image": {"alt": "Horizontal bars of minutes, one per stage"}}}
figure, axis = plt.subplots(figsize=(7, 2.8))
colours = [
    METHOD_STYLES[name[-2:]].colour if name[-2:] in METHOD_STYLES else "0.6"
    for name in minutes.index
]
bars = axis.barh(minutes.index, minutes, color=colours)
axis.bar_label(bars, fmt=" {:.2g}")
axis.invert_yaxis()
axis.set(xlabel="minutes", title=settings.label)
axis.grid(axis="y", visible=False)

# %% [markdown]
# ## How it grows
#
# Twice as many seeds, images or group elements should take twice the time, or less. Dashed is what is proportional to $n$
# and goes through the first point. The exponent is that of the power of $n$ fitted to all points: below 1 is better
# than proportional.
#
# Training is timed without what is done once; measuring with. R1, R2 and R4 are rotations, T1 to T12 cyclic
# translations, and a training on rotations leaves out the border.


# %%
def exponent(curve):
    """Of the power of n that fits best, in logarithms."""
    return np.polyfit(np.log(curve.index), np.log(curve), 1)[0]


growing = timings[timings.n.notna()]
curves = {
    item.removeprefix("growth of "): rows.groupby("n").ours.median()
    for item, rows in growing.groupby("item", sort=False)
}
exponents = pd.Series({name: exponent(c) for name, c in curves.items()})

# %% {"tags": ["hide-input"], "mystnb": {"figure": {"caption": "Time against the number of seeds, of test images and of group elements, median over repeats. Dashed: proportional to n, through the first point. In brackets the fitted exponent.", "name": "fig-growth"}, "image": {"alt": "Four panels of seconds against n, each with a dashed straight line through 0 and the first point"}}}
panels = [
    ("seeds", ["training DA R4 with seeds"]),
    ("test images", ["measure R4 with images"]),
    (
        "elements of the group",
        [n for n in curves if n.startswith("training WT")],
    ),
    (
        "elements of the group ",
        [n for n in curves if n.startswith("measure with")],
    ),
]
figure, axes = plt.subplots(2, 2, figsize=(8, 5.6))
for axis, (label, names) in zip(axes.flat, panels):
    for name, marker, colour in zip(names, "os", ("#0072B2", "#D55E00")):
        curve = curves[name]
        text = f"{name.split(' with ')[-1]} ({exponents[name]:.2f})"
        axis.plot(curve, marker, color=colour, label=text)
        n = np.array([0, curve.index[-1]])
        line = curve.iloc[0] * n / curve.index[0]
        axis.plot(n, line, "--", color=colour, lw=1)
    axis.set(xlabel=label, ylabel="seconds", title=names[0].split(" with ")[0])
    axis.legend()

# %% [markdown]
# ## Less precision
#
# Many processors multiply in bfloat16 several times faster than in float32: same range, 8 bits of the 24. The rows below
# train with products in bfloat16, and keep everything else in float32. It is an option, off by default:
#
# ```python
# ginv.train([ginv.Run("R4", "DA", precision="bfloat16")])
# ```

# %% tags=["hide-input"]
reduced = table[table.index.str.contains("bfloat16|TF32") & table.ratio.notna()]
shifts = reduced[reduced.index.str.contains("shift")]
speeds = reduced.drop(shifts.index)
lines = [
    f"- {item.replace(',', ':')}: {row.ratio:.2g} times as fast as in float32."
    for item, row in speeds.iterrows()
]
if len(shifts):
    far = shifts[shifts.met == "no"]
    lines += [
        f"- Of {len(shifts)} means of Table 1, trained this way, {len(far)} move by more than their spread over seeds."
    ]
else:
    lines += ["- Whether it moves Table 1 has not been measured."]
Markdown("\n".join(lines))

# %% [markdown]
# ## What you saw

# %% tags=["hide-input"]
saved = pd.concat({"minutes": minutes, "exponent": exponents})
saved = saved.rename_axis(["quantity", "item"]).rename("value").reset_index()
settings.save(saved, results, "performance")
steepest = exponents.idxmax()
Markdown(
    f"- {len(aimed) - len(missed)} of {len(aimed)} targets are met.\n"
    f"- From nothing, Table 1 and Figure 5 take about {minutes.sum():.0f} minutes on the machine that was timed; the "
    f"largest share has {minutes.idxmax()}, with {minutes.max() / minutes.sum():.0%}.\n"
    f"- The steepest curve is that of {steepest}: the time grows like $n^{{{exponents[steepest]:.2f}}}$."
)
