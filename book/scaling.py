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
# # A thousand runs
#
# Four seeds and two groups are enough for a table. They are few for a law: how invariance hangs on the width, on the
# data, on $\nu$, is a question for a thousand networks. What would those cost? Nobody should train them to find out.
# This page times the parts on the machine that it runs on, multiplies in the open, and says what would make the product
# wrong.
#
# **What you will see**
#
# - A sweep of 1,000 runs, as the table that `python -m ginv.runs.grid` takes.
# - What a run costs in a stack of one, two, four, eight; and how well counted operations tell the price of a network that
#   was not timed.
# - What a scheduler and its workers add.
# - The product: hours on one machine, on two, on 64. And where it stops falling.
#
# The numbers are those of the machine and the minute in which the page was made, so they are others each time. The words
# beside them are computed from them.

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
# "paper" is the full experiment, "sample" the same on fewer test images, "quick" a look in minutes
profile = "paper"  # @param ["paper", "sample", "quick"]
group = "both"  # @param ["both", "R4", "T3"]
# a list such as [0, 1]; None takes those of the profile
seeds = None  # @param {type: "raw"}
device = "auto"  # @param ["auto", "cpu", "cuda"]
# folder for the numbers of this page
results = "results"  # @param {type: "string"}

# %%
import heapq
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from distributed import Client, LocalCluster
from IPython.display import Markdown

import ginv
from ginv import Run
from ginv.data import DATASETS
from ginv.machine import choose_device
from ginv.pages import Settings, refuse_unknown
from ginv.pages.figures import METHOD_STYLES, show_table, use_style
from ginv.recipe import METHODS
from ginv.runs import costs, store
from ginv.runs.grid import Grid, read_grid, run_grid
from ginv.runs.measured import evaluated
from ginv.runs.train import LARGEST_STACK, stacks
from ginv.stack import TrainedRun, train_stack

refuse_unknown()  # a parameter by a wrong name
settings = Settings(profile, group, seeds, device, results)
use_style()

# %% [markdown]
# ## The sweep
#
# A grid is a YAML file. Each recipe is a table of the fields of `ginv.Run`; where a field has a list, all of its values are
# meant in turn. `&all` and `<<: *all` are YAML's own: the second recipe is the first, with another method. Every run is
# as long as the paper's, 300 epochs on 10,000 images.

# %%
text = """
images: 2000
recipes:
  WT: &all
    method: WT
    group: [R4, T3]
    dataset: [MNIST, FashionMNIST]
    width: [32, 64, 96, 128, 192]
    seed: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
  DA: {<<: *all, method: DA}
  IR: {<<: *all, method: IR, nu: [1, 10, 100]}
"""

# %% [markdown]
# Saved as `grid.yaml`, any of these trains and measures it, and prints a tidy table. The second has it done by the workers
# of a Dask that is running somewhere. With the third, they need not even share a folder: each record comes from and goes
# to a bucket.
#
# ```sh
# python -m ginv.runs.grid grid.yaml > table.csv
# python -m ginv.runs.grid grid.yaml --scheduler tcp://scheduler:8786 > table.csv
# python -m ginv.runs.grid grid.yaml --scheduler tcp://scheduler:8786 --store s3://bucket/runs > table.csv
# ```
#
# Stopped and called again, each goes on where it was. Here we only read the grid, and do what the second would: runs of one
# architecture, which differ in seed and $\nu$ alone, become stacks that train as one network.

# %%
folder = Path(tempfile.mkdtemp())
os.environ["GINV_RUNS"] = str(folder / "runs")  # a store of its own, and of its workers
asked = f"[{', '.join(settings.groups)}]"  # of the parameters of this page
(folder / "grid.yaml").write_text(text.replace("[R4, T3]", asked))
grid = read_grid(folder / "grid.yaml")
where = choose_device(device)
parts = [part for part, _ in stacks(grid.runs, LARGEST_STACK[where.type])]

# %% {"tags": ["hide-input"]}
sizes = pd.Series([len(part) for part in parts]).value_counts()
Markdown(
    f"{len(grid.runs):,} runs in {len(parts)} stacks: "
    + ", ".join(f"{n} of {size}" for size, n in sizes.sort_index().items())
    + "."
)

# %% [markdown]
# ## What a run costs
#
# A worker has one core, which is Dask's default; so we time on one thread. A training has a part that is done once, in
# which the data set is turned and cropped, and epochs, which are all alike. With the time after each epoch we can tell the
# two apart. On a CPU we count the seconds that the core spent on us, so that what else the machine does matters less.

# %%
paper = settings.profile == "paper"
timed_epochs = 6 if paper else 4
shape = {} if paper else {"train_images": 2_000}
torch.set_num_threads(1)


def get_ready():
    """Load what is loaded once: the data, and what the first step needs."""
    for name in DATASETS:
        ginv.load_dataset(name, 0)
    tiny = Run(width=4, depth=1, epochs=1, train_images=100)
    train_stack([tiny], device=choose_device(), progress=False)


# %%
clock = time.process_time if where.type == "cpu" else time.perf_counter


def once_and_epoch(runs):
    """Seconds that a stack takes once, and for an epoch: the median."""
    runs = [replace(run, epochs=timed_epochs, **shape) for run in runs]
    times = [clock()]
    train_stack(runs, device=where, progress=False, keep=lambda state: times.append(clock()))
    first, *others = np.diff(times)
    return max(first - np.median(others), 0), np.median(others)


# %% [markdown]
# ### Stacked
#
# A product of larger matrices keeps a core busier, until the parameters leave its cache. `ginv.train` stacks four on a CPU.

# %%
name = settings.groups[0]
get_ready()
alone = {}
for n in (1, 2, 4, 8) if paper else (1, 4):
    stack = [Run(name, "DA", seed) for seed in range(n)]
    alone[n] = once_and_epoch(stack)[1] / n
alone = pd.Series(alone, name="seconds")

# %% [markdown]
# ### Counted
#
# There are too many architectures in the grid to time each. The operations of a training can be counted, as in
# [How long it takes](performance.ipynb); so we time one width per method and group, divide, and have a speed. For every
# other width the price is its count over that speed.


# %%
def operations(run):
    """Of an epoch."""
    return costs.training_operations(replace(run, epochs=1))


def timed_run(name, method, **changes):
    nu = 1.0 if method == "IR" else 0.0
    return Run(name, method, nu=nu, **shape, **changes)


# %%
measured, speed = {}, {}
for name in settings.groups:
    for method in METHODS:
        run = timed_run(name, method)
        stack = [replace(run, seed=seed) for seed in range(4)]
        measured[method, name] = once_and_epoch(stack)
        epoch = measured[method, name][1]
        speed[method, name] = 4 * operations(run) / epoch
once = np.mean([first for first, _ in measured.values()])

# %% [markdown]
# Is that a way to tell a price? We ask it for stacks that it has not seen: other widths, other data. How far off it is on
# these is what we take for the uncertainty of all that follows.

# %%
unseen = [
    timed_run(settings.groups[0], "WT", width=64),
    timed_run(settings.groups[-1], "DA", width=192, dataset="FashionMNIST"),
    timed_run(settings.groups[-1], "IR", width=32),
]
checks = {}
for run in unseen[: None if paper else 2]:
    stack = [replace(run, seed=seed) for seed in range(4)]
    told = 4 * operations(run) / speed[run.method, run.group]
    label = f"{run.method} {run.group}, width {run.width}"
    checks[label] = (told, once_and_epoch(stack)[1])

# %% {"mystnb": {"figure": {"name": "fig-price"}, "image": {"alt": "Left, seconds per run and epoch against the size of the stack; right, timed against told seconds, near the diagonal"}}, "tags": ["hide-input"]}
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4))
left.plot(alone.index, alone, "o-", color="#0072B2")
left.axhline(alone.iloc[0], ls="--", color="0.5", lw=1)
left.set(xscale="log", xlabel="runs in a stack", title="Stacked")
left.set(ylabel="seconds per run and epoch", ylim=(0, None))
left.set_xticks(alone.index, [*map(str, alone.index)])
left.minorticks_off()
for method, style in METHOD_STYLES.items():
    points = [s for (m, _), (_, s) in measured.items() if m == method]
    right.plot(points, points, style.marker, color=style.colour, label=method)
    for label, pair in checks.items():
        if label.startswith(method):
            right.plot(*pair, style.marker, color=style.colour, mfc="white")
            right.annotate(
                label.split(", ")[1],
                pair,
                xytext=(8, -9),
                textcoords="offset points",
                fontsize="small",
            )
most = max(s for _, s in [*measured.values(), *checks.values()]) * 1.15
right.plot([0, most], [0, most], "--", color="0.5", lw=1)
right.set(xlabel="seconds told", ylabel="seconds timed", title="Counted")
right.set(xlim=(0, most), ylim=(0, most))
right.legend(loc="upper left")
right.grid(True)

# %% [markdown]
# *Left: seconds for an epoch of one run, in stacks of several sizes; dashed is the price of a run alone. Right: seconds
# for an epoch of a stack of four, as told from counted operations and as timed; filled: the stacks that gave the
# speeds, open: those that had no part in them. On the dashed line the two agree.*

# %% {"tags": ["hide-input"]}
best = alone.idxmin()
ratios = pd.Series({label: took / told for label, (told, took) in checks.items()})
low, high = min(ratios.min(), 1), max(ratios.max(), 1)
Markdown(
    f"A run costs least in a stack of {best}: {alone[best] / alone.iloc[0]:.0%} of its price alone. The stacks that had no "
    f"part in the speeds took {ratios.min():.2f} to {ratios.max():.2f} times what was told, so a price from counted "
    f"operations is good to within {max(high - 1, 1 - low):.0%} or so."
)

# %% [markdown]
# ### Measured, and kept
#
# A run is also evaluated, on 2,000 validation images: the metrics of Table 1, sensitivity, drift. Nearly all of that is
# saliency maps. Its price hangs on the network and the orbit, and hardly on how the network was trained.

# %%
FEW = 200  # images


def seconds_to_evaluate(method, name, images):
    run = timed_run(name, method)
    untrained = TrainedRun(run, run.model().requires_grad_(False), {})
    began = clock()
    evaluated(untrained, grid.split, images, device=device)
    return clock() - began


# %%
few = [seconds_to_evaluate("DA", settings.groups[0], FEW) for _ in range(2)]
evaluating = {key: seconds_to_evaluate(*key, grid.images if paper else FEW) for key in measured}
if not paper:  # a look: as if it were in proportion
    evaluating = {k: s * grid.images / FEW for k, s in evaluating.items()}

# %% {"tags": ["hide-input"]}
prices = pd.DataFrame(
    {
        "once (s a stack)": {key: first for key, (first, _) in measured.items()},
        "epoch (s a run)": {key: s / 4 for key, (_, s) in measured.items()},
        "speed (GFLOP/s)": {key: value / 1e9 for key, value in speed.items()},
        "evaluating (s a run)": evaluating,
    }
)
show_table(prices, f"One core, width 128, stacks of 4, epochs timed: {timed_epochs}", 3)

# %% [markdown]
# ## What workers add
#
# So far there was one process, and it was ours. Now a real scheduler and a worker of one core, on this machine, and
# then a second worker beside the first. The sweep is small and of one kind of network, so that its price can be told
# from the above: four widths, four seeds, an epoch or a few. It is `ginv.runs.grid.run_grid`, in a store of its own.


# %%
def small(first):
    """A few stacks that nobody has trained."""
    runs = (
        Run(settings.groups[0], "DA", seed, width=width, epochs=timed_epochs, **shape)
        for width in ((96, 112, 128, 144) if paper else (112, 128))
        for seed in range(first, first + 4)
    )
    return Grid({"DA": tuple(runs)}, images=FEW)


def seconds_of_workers(client):
    return sum(client.run(clock).values())


def do_small(client, first):
    """Seconds of cores that the workers used, and that it took."""
    client.run(get_ready)
    before, began = seconds_of_workers(client), time.perf_counter()
    address = client.scheduler.address
    run_grid(small(first), device=device, scheduler=address)
    took = time.perf_counter() - began
    return seconds_of_workers(client) - before, took


# %%
options = dict(threads_per_worker=1, dashboard_address=None, host="127.0.0.1")
with LocalCluster(n_workers=1, **options) as cluster, Client(cluster) as client:
    hasty, _ = do_small(client, 4)

# %% [markdown]
# That was a worker as Dask starts it: with `MALLOC_TRIM_THRESHOLD_` set, so that it gives memory back to the system as
# soon as it is free. A training frees and takes the same memory in every step, and then has to wait for it. So we start
# workers that keep what they have, as should you:
#
# ```sh
# export MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_MMAP_THRESHOLD_=1073741824
# dask worker tcp://scheduler:8786 --nworkers 2 --nthreads 1
# ```

# %%
for name in ("TRIM", "MMAP"):
    os.environ[f"MALLOC_{name}_THRESHOLD_"] = str(2**30)
cluster = LocalCluster(n_workers=1, **options)
client = Client(cluster)
began = time.perf_counter()
client.run(get_ready)
start = time.perf_counter() - began

# %%
began = time.perf_counter()
client.gather(client.map(abs, range(200), pure=False))
task = (time.perf_counter() - began) / 200

# %%
used, took = {}, {}
for workers in (1, 2):
    cluster.scale(workers)
    client.wait_for_workers(workers)
    used[workers], took[workers] = do_small(client, 4 + 4 * workers)
client.close()
cluster.close()

# %% [markdown]
# What the small sweep should cost is its arithmetic: for each stack the part that is done once, its epochs, its
# evaluations. The ratio of what the worker used to that says what we forgot, such as storing, reading, verifying. We
# shall take it in proportion, which for long trainings is too much rather than too little. And were two workers no
# trouble to each other, they would use on two cores what one uses on one. They share a memory and a clock, so it may be
# more.


# %%
def training_seconds(part):
    """Of a stack, as told."""
    run, n = part[0], len(part)
    slower = np.interp(n, alone.index, alone) / alone[4]
    epoch = n * operations(run) / speed[run.method, run.group] * slower
    return once + run.epochs * epoch


told = sum(training_seconds(part) + len(part) * few[1] for part, _ in stacks(small(4).runs, 4))
forgotten, crowded = used[1] / told, used[2] / used[1]

# %% {"tags": ["hide-input"]}
stored = {
    run: sum(
        file.stat().st_size
        for file in (folder / "runs" / store.record_name(run.specification)).iterdir()
    )
    for run in small(4).runs
}


def weights(run):
    return sum(leaf.numel() for leaf in run.model().parameters())


per_weight = sum(stored.values()) / sum(map(weights, stored))
Markdown(
    f"- A worker is ready, with ginv and the data loaded, in {start:.1f} s. A task that does nothing takes "
    f"{1000 * task:.1f} ms.\n"
    f"- As Dask starts it, the worker used {hasty:.1f} s of its core for the small sweep; keeping its memory, "
    f"{used[1]:.1f} s.\n"
    f"- The small sweep took {took[1]:.1f} s on this one worker. What it used is {forgotten:.2f} times the {told:.1f} s "
    f"that were told.\n"
    f"- On two workers it took {took[2]:.1f} s, and {crowded:.2f} times the seconds of a core. (What it took, other work "
    f"on the machine prolongs as well.)\n"
    f"- A record takes {per_weight:.2f} bytes per weight; of a run of width 128, "
    f"{per_weight * weights(Run()) / 1e6:.2f} MB."
)

# %% [markdown]
# ## The product
#
# Now the arithmetic. For each stack of the grid: the part that is done once, 300 epochs at the speed of its method and
# group, its evaluations; times the two ratios that we just measured. Summed over stacks it is the time of one core.

# %%
cost = pd.DataFrame(
    {
        "recipe": [part[0].method for part in parts],
        "runs": [len(part) for part in parts],
        "training": [training_seconds(part) for part in parts],
        "measuring": [len(p) * evaluating[p[0].method, p[0].group] for p in parts],
    }
)
cost["seconds"] = cost.training + cost.measuring
cost.seconds = cost.seconds * forgotten * crowded + task

# %% {"tags": ["hide-input"]}
by_recipe = cost.groupby("recipe", sort=False).agg(
    stacks=("runs", "size"), runs=("runs", "sum"), seconds=("seconds", "sum")
)
by_recipe.loc["all"] = by_recipe.sum()
epochs = grid.runs[0].epochs
by_recipe["run-epochs"] = by_recipe.runs * epochs
by_recipe["s per run-epoch"] = by_recipe.seconds / by_recipe["run-epochs"]
by_recipe["core-hours"] = by_recipe.seconds / 3600
show_table(
    by_recipe.astype({"stacks": int, "runs": int, "run-epochs": int})[
        ["stacks", "runs", "run-epochs", "s per run-epoch", "core-hours"]
    ],
    "The sweep on one core, evaluations included",
)

# %% {"tags": ["hide-input"]}
whole = by_recipe.loc["all"]
hours = whole["core-hours"]
Markdown(
    f"{whole.runs:,.0f} runs of {epochs} epochs of {whole['s per run-epoch']:.3f} s are {whole.seconds:,.0f} s, "
    f"**{hours:.0f} hours of one core**; by how far the told prices were off, {low * hours:.0f} to {high * hours:.0f}."
)

# %% [markdown]
# ## On more machines
#
# A machine here is one like this, with a worker per core. Divided by the workers the hours are a straight line. Three
# things bend it, and all can be computed:
#
# - *The longest stack.* A stack is one task, and no task is cut. Tasks are handed out, longest first, to whichever worker
#   is free; at the end some wait for the last.
# - *Loading.* Each worker starts once, as timed above.
# - *Traffic.* Every record crosses the network once. Where the store is a shared folder, so do checkpoints, a minute
#   apart: for each weight four numbers, itself, the best so far and Adam's two moments. With `--store` they stay on the
#   worker. What the network carries we have not measured. We assume 100 Mbit/s into the store.

# %%
cores = os.cpu_count() if where.type == "cpu" else torch.cuda.device_count()


def makespan(workers):
    """Seconds until the last worker is done."""
    free = [start] * workers
    for length in sorted(cost.seconds, reverse=True):
        heapq.heapreplace(free, free[0] + length)
    return max(free)


# %%
link = 100e6 / 8  # bytes a second, assumed
count = {run: weights(run) for run in {part[0] for part in parts}}
records = sum(len(p) * count[p[0]] for p in parts) * per_weight
checkpoint = max(len(p) * count[p[0]] for p in parts) * 4 * 4
saturated = link / (checkpoint / 60)  # workers that keep the network busy

# %%
machines = [2**i for i in range(9)]
line = pd.Series({m: cost.seconds.sum() / (m * cores) for m in machines})
real = pd.Series({m: makespan(m * cores) for m in machines})
real = real.clip(lower=records / link)
plan = pd.DataFrame({"straight line": line / 3600, "computed": real / 3600})
plan["from"], plan["to"] = plan.computed * low, plan.computed * high
plan["busy (%)"] = 100 * line / real

# %% {"mystnb": {"figure": {"name": "fig-machines"}, "image": {"alt": "Hours against machines, both logarithmic: a dashed straight line and a solid curve that leaves it to the right"}}, "tags": ["hide-input"]}
figure, axis = plt.subplots(figsize=(7, 3.6))
axis.fill_between(machines, plan["from"], plan.to, color="#0072B2", alpha=0.2)
axis.plot(plan.computed, "o-", color="#0072B2", label="computed")
axis.plot(plan["straight line"], "--", color="0.4", label="straight line")
floor = cost.seconds.max() / 3600
axis.axhline(floor, ls=":", color="#D55E00", label="the longest stack")
axis.set(xscale="log", yscale="log", xlabel="machines", ylabel="hours")
axis.set_xticks(machines, [*map(str, machines)])
axis.yaxis.set_major_formatter("{x:g}")
axis.legend()
axis.minorticks_off()

# %% [markdown]
# *Hours of the sweep against machines like this one. Dashed: core-hours over cores. Solid: with the longest stack,
# loading and traffic. The band is by how far told prices were off; it knows nothing of machines unlike this one.*

# %% {"tags": ["hide-input"]}
show_table(
    plan.loc[[1, 2, 8, 64]].rename_axis("machines"),
    f"Hours of {len(grid.runs):,} runs on machines of {cores} cores",
    2,
)

# %% {"tags": ["hide-input"]}
bent = plan.index[plan["busy (%)"] < 80]
Markdown(
    f"- The longest of the {len(parts)} stacks takes {60 * floor:.0f} minutes. "
    + (
        f"From {bent[0]} machines on, the cores are busy for less than four fifths of the time.\n"
        if len(bent)
        else "On all of these the cores are busy for four fifths of the time or more.\n"
    )
    + f"- All records are {records / 1e9:.2f} GB: {records / link / 60:.1f} minutes of the network that we assume.\n"
    f"- Checkpoints of the largest stacks, at {checkpoint / 1e6:.0f} MB a minute each, would fill it from "
    f"{saturated:.0f} workers on, or {max(saturated / cores, 1):.0f} machines: with more, take `--store`.\n"
    f"- The scheduler's own {1000 * task:.1f} ms a task are {len(parts) * task:.1f} s in all."
)

# %% [markdown]
# What is in none of these numbers: machines of another kind, or of several kinds in one cluster; others who use them; a
# network slower than we assume; a worker that dies, which costs what its stack had done since its last checkpoint, or,
# where workers share no folder, since it began. And minutes on one machine say little about its hours: processors slow
# down as they get warm.
#
# ## What you saw

# %% {"tags": ["hide-input"]}
rows = {
    **{("seconds per run-epoch, stack", n): s for n, s in alone.items()},
    **{("told", label): ratio for label, ratio in ratios.items()},
    **{("evaluating, seconds a run", f"{m} {g}"): s for (m, g), s in evaluating.items()},
    ("seconds", "a worker starts"): start,
    ("seconds", "a task"): task,
    ("ratio", "a worker as Dask starts it"): hasty / used[1],
    ("ratio", "forgotten"): forgotten,
    ("ratio", "two workers"): crowded,
    ("bytes", "per weight"): per_weight,
    ("sweep", "runs"): len(grid.runs),
    ("sweep", "stacks"): len(parts),
    ("sweep", "core-hours"): hours,
    **{("hours, machines", m): h for m, h in plan.computed.items()},
    **{("straight line, machines", m): h for m, h in plan["straight line"].items()},
}
saved = pd.Series(rows).rename_axis(["quantity", "item"]).rename("value")
settings.save(saved.reset_index(), results, "scaling")
hour = np.array([1, 2, 8, 64])
Markdown(
    f"- A thousand runs of the paper's length take about {hours:.0f} core-hours, {low * hours:.0f} to "
    f"{high * hours:.0f}.\n"
    f"- That is {plan.computed[1]:.1f} hours on this machine, {plan.computed[8]:.1f} on eight like it and "
    f"{plan.computed[64]:.2f} on 64, where a straight line would have {plan['straight line'][64]:.2f}.\n"
    f"- What bends the line is the longest stack, of {60 * floor:.0f} minutes. Smaller stacks would bend it later, "
    f"at {alone.iloc[0] / alone[4]:.2f} times the price of a run, were they of one."
)
