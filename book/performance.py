# ---
# jupyter:
#   jupytext:
#     cell_metadata_json: true
#     formats: ipynb,py:percent
#     notebook_metadata_filter: -jupytext.text_representation.format_version,-jupytext.text_representation.jupytext_version
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
# Stored results are believed, computed ones are checked. So the whole paper should be cheap enough to be done again by
# whoever reads it, on whatever computer is at hand. This page says what that takes, how near it comes to what the machine
# can do, and what it will take for more seeds, more images or larger groups.
#
# **What you will see**
#
# - The operations of a training, counted.
# - A table of speeds, each against something that was timed on the same machine, in turn with it: a large matrix product,
#   the loop that one would write first, captum.
# - The aims that are missed, and what the machine would allow.
# - Where the time goes, and how it grows.
# - What reduced precision would save and what it would move.
#
# Times differ from run to run, and a page that takes its own would never come out the same twice. So this one reads them:
# `make bench` measures, and writes `results/bench.csv` and `results/timings.csv`. Only the operations are counted here.

# %% {"tags": ["remove-cell"]}
# A notebook that is opened alone, as on Colab, fetches the book that it belongs to
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

# written by `make publish-url`
address, tag = "", "v0.1.0"

if find_spec("ginv") is None:
    clone = Path("ginv-book").resolve()
    if not (address or clone.is_dir()):
        raise ImportError("ginv is in no public place yet: pip install -e '.[book]' in a clone")
    if not clone.is_dir():
        print(f"Fetching the book with its data, {address} {tag}")
        git = ["git", "clone", "-q", "--depth", "1", "--branch", tag, address, clone]
        subprocess.run(git, check=True)
    sys.path.insert(0, str(clone))
    subprocess.run([sys.executable, clone / "tools/lacking.py"], check=True)

# %% {"tags": ["parameters"]}
# "paper" is the full experiment, "quick" a look in minutes
profile = "paper"  # @param ["paper", "quick"]
group = "both"  # @param ["both", "R4", "T3"]
# a list such as [0, 1]; None takes those of the profile
seeds = None  # @param {type: "raw"}
device = "auto"  # @param ["auto", "cpu", "cuda"]
# folder for the numbers of this page
results = "results"  # @param {type: "string"}

# %%

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

import ginv
from ginv.border import Border
from ginv.pages import Settings, refuse_unknown
from ginv.pages.figures import METHOD_STYLES, show_table, use_style
from ginv.pages.paper import book_file
from ginv.recipe import METHODS
from ginv.runs import costs

refuse_unknown()  # a parameter by a wrong name
settings = Settings(profile, group, seeds, device, results)
use_style()
Markdown(f"Work is counted for {settings.label}.")

# %%
bench = pd.read_csv(book_file("results/bench.csv"), index_col="item")
timings = pd.read_csv(book_file("results/timings.csv"))

# %% [markdown]
# ## Operations
#
# The work of a perceptron is in its matrix products. We count their multiplications and additions: forward, backward for the
# weights, backward for the inputs of all layers but the first, and a forward pass of the validation images after each
# epoch. Both views that IR takes of an image count.
#
# The count is that of the networks as they are defined: whole images of $36 \times 36$ pixels, and weight-tying with
# every $gx$ multiplied out. What `ginv` does is less: training leaves out the border, in which all images of all orbits
# are equal and the first layer's product with it is one number a unit. So a training can come out faster than its
# operations at full speed; what is compared is the time for the same result.

# %%
data = ginv.load_dataset()
images = torch.cat([data.train.images, data.validation.images])


def done_operations(run):
    """Without the border."""
    rows, columns = Border.of(images, ginv.group_named(run.group)).inside_shape
    return costs.training_operations(run, rows * columns)


# %%
runs = {
    (name, method): settings.run(name, method, 0) for name in settings.groups for method in METHODS
}
counted = pd.Series(runs).map(costs.training_operations)
done = pd.Series(runs).map(done_operations)
over_da = counted / counted.xs("DA", level=1).reindex(counted.index, level=0)

# %%
work = pd.DataFrame(
    {"operations (10¹²)": counted / 1e12, "over DA": over_da, "share that is done": done / counted}
).rename_axis(["group", "method"])
epochs = runs[settings.groups[0], "DA"].epochs
show_table(work, f"One training run of {epochs} epochs", 2)

# %% [markdown]
# ## Speeds
#
# Each row is one piece of work done in two ways, ours and a reference, in turn, on all the threads that there are. Its
# ratio is the reference over ours: how many times less ours takes. Where it was repeated, it is the median, with the
# smallest and the largest beside it; the rows on the book and on memory were taken once, and their unit is in their name.
#
# - *Training*: seconds for an epoch of a run, stacked over four seeds, two stacks side by side; shuffling,
#   augmentation and validation included. The reference is the counted operations at the speed of a float32 product of
#   $4096 \times 4096$ matrices.
# - *A plain loop*: a `DataLoader` without workers, torchvision's transforms, one network at a time. It is in
#   `tools/naive_training.py`.
# - *Maps*: integrated gradients of 50 steps, against captum's in batches of 256 images.
# - *Measure*: `ginv.measure` of the DA network, against `tools/naive_measure.py`, which takes captum's maps and then
#   goes through all pairs of the orbit. Its memory is what 50,000 images add to a process after a first batch of 256,
#   against what the saliency maps of all those images would fill if they were kept.
# - *Growth*: seconds at the end of a curve that is drawn below, against twice the time of half as much, of which it has to
#   keep within a tenth.
# - *Book*: `make book` for the paper itself, Table 1 to Figure 5, the proposition and the ledger; open choices, the price of
#   invariance, scaling and this page are not in it. The reference is a limit that we set for a machine with two cores.
#   Its memory is that of the largest process.

# %% {"tags": ["hide-input"]}
shift = bench.index.str.contains("shift")  # shown under less precision
paired = timings[timings.n.isna()]
ratios = (paired.reference / paired.ours).groupby(paired.item)
repeated = ratios.size() > 1
table = bench.assign(smallest=ratios.min()[repeated], largest=ratios.max()[repeated])
table = table[["ours", "reference", "ratio", "smallest", "largest", "target", "met"]]
rows = table[table.ratio.notna() & ~shift].fillna({"met": ""})
wrap = {
    "selector": "th.row_heading",
    "props": "white-space: normal; text-align: left; min-width: 8em",
}
show_table(rows, f"On {timings.threads.max()} threads", 3).set_table_styles([wrap], overwrite=False)

# %% {"tags": ["hide-input"]}
one_epoch = ginv.Run(epochs=1)
epoch = costs.training_operations(one_epoch)
speed = epoch / bench.reference["training DA R4"]
reached = {
    f"{method} {name}": rows.ratio[f"training {method} {name}"] * part
    for (name, method), part in (done / counted).items()
}
below = [name for name, value in reached.items() if value < 0.7]
aimed = rows[rows.target.notna()]
missed = aimed[aimed.met == "no"]
lines = [
    f"- Of {len(aimed)} aims {len(aimed) - len(missed)} are met.",
    f"- The machine did {speed / 1e9:.0f} GFLOP/s in the large product. Counting only what is done, the border left "
    f"out, training reaches {min(reached.values()):.2f} to {max(reached.values()):.2f} of that; "
    + (f"below 0.7: {', '.join(below)}." if below else "none is below 0.7."),
]
lines += [
    f"- {reason[0].upper()}{reason[1:]}: {'; '.join(absent.index)}."
    for reason, absent in table[table.ratio.isna()].groupby("met")
]
Markdown("\n".join(lines))

# %% [markdown]
# ## What is missed
#
# An aim may be missed because the work is done slowly, or because there is too much of it. The table tells the two apart:
# beside each aim that is missed is the ratio that the same work would reach if all its products, as counted, went at the
# speed of the large one and nothing else took time. Where even that is below the aim, only fewer operations or lower
# precision can help.


# %%
def test_images(settings):
    """Of each run of Table 1 and Figure 5."""
    images = dict.fromkeys(settings.runs(), settings.test_images)
    return images | dict.fromkeys(settings.spectral_runs(), settings.fewer_images)


paper = test_images(Settings()).items()
training = sum(costs.training_operations(run) for run, n in paper)
measuring = sum(costs.measurement_operations(run, n) for run, n in paper)

# %%
maps = costs.measurement_operations(one_epoch, 1000)
least = {
    "training DA R4 stacked, against a plain loop": epoch,
    "training DA R4 alone, against a plain loop": epoch,
    "maps MLP, 1000 images": maps / 4,  # measured on orbits of 4
    "measure R4, 1000 images": maps,
    "book from nothing, minutes": (training + measuring) / 60,
}
bound = missed.reference / (pd.Series(least) / speed)  # of training rows 1

# %% {"tags": ["hide-input"]}
bounds = missed[["ratio", "target"]].assign(bound=bound.reindex(missed.index).fillna(1))
bounds.columns = ["ratio", "aim", "at the speed of the product"]
show_table(bounds, "The aims that are missed, and their bounds", 3).set_table_styles(
    [wrap], overwrite=False
)

# %% [markdown]
# What takes the rest of the time is not in the table; a profiler says it:
#
# - *Training*: the products of a batch are too thin for the speed of the large one. Between them, gathering images, biases,
#   ReLUs, the loss and Adam wait for memory, and weigh more the faster a machine multiplies. Training is most of the *book*,
#   too.
# - A network trained *alone* splits each of these products over the cores, which then wait for each other. More seeds at
#   once is what helps.
# - *Maps* and *measure*: between two products of 128 columns each activation is read and written again for its ReLU. A part
#   of *measure* turns and smooths maps.

# %% [markdown]
# ## Where the time goes
#
# Speed times work: an estimate of what the chapters of the paper take from nothing, stage by stage, by the speeds above.
# A training of a run is as long as its epochs, whatever the form of the regulariser; *measuring* is `ginv.measure` on the
# orbit of every test image, at the speed of the DA network on R4; *pages* is what the book takes when everything is
# stored: reading, drawing, and all that other chapters compute for themselves.


# %%
def training_minutes(runs):
    per_epoch = [bench.ours[f"training {run.method} {run.group}"] for run in runs]
    return sum(s * run.epochs for s, run in zip(per_epoch, runs)) / 60


minutes = {
    f"training {method}": training_minutes([run for run in settings.runs() if run.method == method])
    for method in METHODS
}
minutes["training, Figure 5"] = training_minutes(settings.spectral_runs())

# %%
per_view = bench.ours["measure R4, 1000 images"] / 4000
views = sum(ginv.group_named(run.group).order * n for run, n in test_images(settings).items())
minutes["measuring"] = views * per_view / 60
if settings.profile == "paper":
    minutes["pages"] = bench.ours["book from a full store, minutes"]
minutes = pd.Series(minutes).dropna()

# %% {"mystnb": {"figure": {"name": "fig-stages"}, "image": {"alt": "Horizontal bars of minutes, one per stage"}}, "tags": ["hide-input"]}
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
# *Minutes that each stage takes, from nothing: the training of Table 1 by method and of the further runs of Figure 5,
# measuring them on the test images, and the pages themselves where that was measured.*
#
# ## How it grows
#
# Twice as many seeds, images or group elements should take twice the time, or less. Dashed is what is proportional to $n$
# and goes through the first point. The exponent is that of the power of $n$ fitted to all points: below 1 is better
# than proportional.
#
# Training is timed without what is done once; measuring with. R1, R2 and R4 are rotations, T1 to T12 cyclic
# translations. How much of the border a training leaves out hangs on the group: more for rotations and T1 than for other
# translations.


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

# %% {"mystnb": {"figure": {"name": "fig-growth"}, "image": {"alt": "Four panels of seconds against n, each with a dashed straight line through 0 and the first point"}}, "tags": ["hide-input"]}
panels = [
    ("seeds", ["training DA R4 with seeds"]),
    ("test images", ["measure R4 with images"]),
    ("elements of the group", [n for n in curves if n.startswith("training WT")]),
    ("elements of the group ", [n for n in curves if n.startswith("measure with")]),
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
# *Time against the number of seeds, of test images and of group elements, median over repeats. Dashed: proportional to
# n, through the first point. In brackets the fitted exponent.*
#
# ## Less precision
#
# Many processors multiply in bfloat16 several times faster than in float32: same range, 8 bits of the 24. The rows below
# train with products, and the activations between them, in bfloat16; weights, Adam's moments and sums over a batch stay in
# float32. It is an option, off by default:
#
# ```python
# ginv.train([ginv.Run("R4", "DA", precision="bfloat16")])
# ```

# %% {"tags": ["hide-input"]}
speeds = rows[rows.index.str.contains("bfloat16|TF32")]
Markdown(
    "\n".join(
        f"- {item.replace(',', ':')}: {row.ratio:.2g} times as fast as in float32."
        for item, row in speeds.iterrows()
    )
)

# %% [markdown]
# Is it free? The networks of Table 1 were trained both ways, and accuracy and SI measured on 5,000 test images. The shift
# is that of the mean over the four seeds; the spread is the standard deviation over the seeds in float32.

# %% {"tags": ["hide-input"]}
shifts = table[shift & table.ratio.notna()]
shifts.index = shifts.index.str.removeprefix("bfloat16, shift of ")
shifts = shifts[["ours", "reference", "met"]].replace({"met": {"no": "yes", "yes": "no"}})
shifts.columns = ["shift", "spread", "more than the spread"]
show_table(shifts, "What bfloat16 moves (accuracy in points)", 4)

# %% {"tags": ["hide-input"]}
far = shifts[shifts["more than the spread"] == "yes"]
Markdown(
    f"{len(far)} of {len(shifts)} means move by more than their spread"
    + (f": {'; '.join(far.index)}." if len(far) else ".")
)

# %% [markdown]
# ## What you saw

# %% {"tags": ["hide-input"]}
saved = pd.concat({"minutes": minutes, "exponent": exponents})
saved = saved.rename_axis(["quantity", "item"]).rename("value").reset_index()
settings.save(saved, results, "performance")
steepest = exponents.idxmax()
taken = f"{minutes.sum():.0f} minutes by this estimate"
if (book := bench.ours["book from nothing, minutes"]) > 0:
    taken = f"{book:.0f} minutes ({taken})"
Markdown(
    f"- {len(aimed) - len(missed)} of {len(aimed)} aims are met.\n"
    f"- From nothing, the chapters of the paper take {taken} on the machine that was timed; the "
    f"largest share has {minutes.idxmax()}, with {minutes.max() / minutes.sum():.0%}.\n"
    f"- The steepest curve is that of {steepest}: the time grows like $n^{{{exponents[steepest]:.2f}}}$."
)
