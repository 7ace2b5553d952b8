# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: all,-jupyter
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
# # The ledger: claim by claim
#
# Two curves that look alike do not make a reproduction. So each sentence of the paper ([Moskalev et al., 2023](https://arxiv.org/abs/2308.03904)) that
# says something about the world becomes a number here, with a threshold that was written down next to it, and the code
# returns the verdict. Twelve sentences carry the paper. How many hold up?

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

# %% {"tags": ["hide-input", "parameters"]}
# "paper" is the full experiment, "sample" the same on fewer test images, "quick" a look in minutes
profile = "paper"  # @param ["paper", "sample", "quick"]
group = "both"  # @param ["both", "R4", "T3"]
# a list such as [0, 1]; None takes those of the profile
seeds = None  # @param {type: "raw"}
device = "auto"  # @param ["auto", "cpu", "cuda"]
# folder for the numbers of this page; name another before you change anything
results = "results"  # @param {type: "string"}

# %% {"tags": ["hide-input"]}
from html import escape

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML

from ginv.pages import Settings, expect, refuse_unknown
from ginv.pages.evidence import Tables, interval
from ginv.pages.figures import use_style
from ginv.pages.ledger import (
    KINDS,
    NOT,
    VERDICTS,
    as_table,
    headline_verdict,
    headlines_html,
    judge,
    marked,
    put_all_to_the_test,
    read_ledger,
    rows_html,
)
from ginv.pages.paper import PAPER_SEEDS, book_file, printed_table, room

refuse_unknown()  # a parameter by a wrong name
settings = Settings(profile, group, seeds, device, results)
use_style()

# %% {"tags": ["hide-input"]}
saved = ("table1", "metrics", "trust", "drift", "spectral", "proposition")
loaded = {name: settings.load(results, name) for name in saved}
tables = Tables.read(loaded.get, settings.seeds)
*headlines, apart = read_ledger(book_file("ledger.yaml"), settings.groups)
claims = [row for each in (*headlines, apart) for row in each.rows]
judged = {found.claim: found for found in put_all_to_the_test(claims, tables)}
rows = {each.id: [judged[claim] for claim in each.rows] for each in headlines}
HTML(headlines_html(headlines, [*judged.values()], settings.groups))

# %%
# expect() is silent where the words hold in this run, and shows a banner where not
verdicts = pd.Series({each.id: headline_verdict(each, rows[each.id]) for each in headlines})
count = verdicts.value_counts().reindex(list(VERDICTS), fill_value=0)
expect("five reproduced, five undecided, two not reproduced", [*count] == [5, 5, 2])
of_table = ("table1-accuracy-", "table1-li-", "table1-di-", "table1-si-")
evidence = [v for v in judged.values() if v.claim.kind == "evidence"]
missed = {v.claim.id for v in evidence if v.verdict == NOT and v.claim.id.startswith(of_table)}
cells = {"table1-accuracy-ir-R4", "table1-si-da-R4", "table1-li-da-T3"}
expect("three cells of Table 1 are contradicted", missed == cells)

# %% [markdown]
# Five of the twelve are reproduced, five are undecided, and two are not reproduced. Those two are the numbers of Table 1.
# Regularised networks on rotations are right in 86.3 % where the paper prints 87.9, though at the SI that it prints they
# agree; the five other accuracies do. The SI of augmentation on rotations is 0.47 where it prints 0.17, while on
# translations LI alone is out, which a second training brings in. Of the undecided ones some row cannot be told from its
# opposite by four seeds, or asks about a form that never reached the SI at which the paper compares.
#
# A headline is reproduced (●) if every row that decides on it is, not reproduced (✕) if one of them is contradicted, and
# undecided (◆) in all other cases. Click a sentence for its evidence.

# %% [markdown]
# ## How far is each verdict from turning?

# %% {"tags": ["hide-input"]}
table = as_table([judged[claim] for each in headlines for claim in each.rows])
table["half"] = (table.high - table.low) / 2
sided = table[table.half.notna() & table.kind.isin(["evidence", "ours"])]
sided = sided[~sided.threshold.str.contains(" to ")].copy()
limit = sided.threshold.str.split().str[1].astype(float)
sign = sided.threshold.str.startswith(">") * 2 - 1
sided["distance"] = sign * (sided.value - limit) / sided.half
sided["name"] = sided.id.str.replace("-(?:R4|T3)$", "", regex=True)
lines = {name: row for row, name in enumerate(dict.fromkeys(sided.name))}

# %% {"mystnb": {"figure": {"name": "fig-ledger"}, "image": {"alt": "Two panels of markers, a row per claim, most to the right of a grey band, some in it and some to the left"}}, "tags": ["hide-input"]}
figure, panels = plt.subplots(
    1, len(settings.groups), figsize=(6, 0.17 * len(lines) + 1), sharey=True, squeeze=False
)
for axis, name in zip(panels[0], settings.groups):
    axis.axvspan(-1, 1, color="grey", alpha=0.3, lw=0)
    for kind, marker, fill in (("evidence", "o", "full"), ("ours", "s", "none")):
        some = sided[sided.id.str.endswith(f"-{name}") & (sided.kind == kind)]
        look = dict(fillstyle=fill, color="0.2", ms=4)
        axis.plot(some.distance, some.name.map(lines), marker, **look)
    axis.set_xscale("symlog", linthresh=1)
    axis.set(title=name, xlabel="half widths", xlim=(-5e4, 5e4))
    axis.set_xticks([-1000, -1, 1, 1000], ["-1000", "-1", "1", "1000"])
    axis.grid(axis="y", lw=0.3)
if lines:
    panels[0, 0].set_yticks(range(len(lines)), lines, fontsize=7)
    panels[0, 0].set_ylim(len(lines) - 0.4, -0.6)

# %% [markdown]
# *Most verdicts stand far from their thresholds. Each marker is a claim with an interval; its position is the distance of
# the mean from the threshold, in half widths of that interval, linear up to 1 and logarithmic beyond. Right of the grey
# band the claim holds, left of it the claim is contradicted, inside it four seeds cannot say. Circles: what the paper
# says. Open squares: stricter readings of ours, which decide on nothing.*
#
# The paper's words are words: "high", "considerably", "on par". The thresholds are ours. So each decided verdict comes
# with the threshold at which it would turn; if you would have put the threshold beyond that point, cross the verdict out.

# %% [markdown]
# ## The rule
#
# A claim becomes a statistic with one value per seed. Where methods are compared, that value is the difference or the
# ratio of two networks *of the same seed*, which have seen the same images in the same order. Over the seeds it has a mean
# and a 95 % interval (Student's $t$), and the claim sets a threshold. There is one rule for all rows:

# %%
assert judge(interval([0.96, 0.97, 0.98]), ">= 0.9")[-1] == "reproduced"  # all of the interval
assert judge(interval([0.80, 0.81, 0.82]), ">= 0.95")[-1] == "not reproduced"  # none of it
assert judge(interval([0.8, 0.9, 1.0]), ">= 0.95")[-1] == "undecided"  # some of it
assert judge(interval([0.96]), ">= 0.95")[-1] == "undecided"  # one seed has no interval
assert judge(7, ">= 6")[-1] == "reproduced"  # a count is exact and needs none

# %%
leads = [v for v in judged.values() if v.claim.id == "wt-above-da-T3"]
above = [v.value > (v.value - v.low) * 2.35 / 3.18 for v in leads]
expect("one-sided, WT is above DA on T3", above or False)

# %% [markdown]
# How often would an honest copy of the accuracies be called one that disagrees? Draw two runs of the same experiment, with
# the spreads that the paper prints and four seeds each, and put them to the rule of Table 1.

# %%
printed = printed_table().xs("accuracy", level="metric")
drawn = np.random.default_rng(0).normal(size=(2_000, 2, len(printed), PAPER_SEEDS))


def disagree(ours, theirs, row):
    """Two runs of one experiment, a deviation a seed; row: what the paper prints."""
    ours, theirs = (run * row.sd for run in (ours, theirs))
    reach = room(ours.std(ddof=1), PAPER_SEEDS, {**row, "sd": theirs.std(ddof=1)})
    return abs(ours.mean() - theirs.mean()) > reach


# %%
cells_of_six = [row for _, row in printed.iterrows()]
failing = [any(map(disagree, *pair, cells_of_six)) for pair in drawn]
expect("about one in six disagrees somewhere", abs(np.mean(failing) - 0.16) < 0.03)

# %% [markdown]
# Beside each number of Table 1 the paper prints a spread. There the threshold is a range around the printed mean, wide
# enough for the spread of both sides and for the paper's rounding, and our mean has to lie in it. A cell with a large
# spread is easy to agree with; the spread is the paper's. And with six accuracies, of
# honest copies about one in six disagrees somewhere, since four seeds tell their own spread poorly.
#
# Some claims presuppose others. Whether a form of the regulariser blunts the network *at SI 0.95* cannot be asked where
# that form never got to SI 0.95, so such a row is undecided there and says what it lacks.
#
# Intervals are two-sided. For a claim of a direction this is the stricter choice: one-sided, WT would be above DA on T3 (of
# four seeds Student's factor is then 2.35 and not 3.18).
#
# A few words return again and again, and mean the same wherever they stand. *On par with WT* leaves at most a twentieth of
# the error of DA. *Closing* and *similar* mean more than half of the way. *Low*, of SI, is measured on a
# scale from the similarity of maps that have nothing to do with each other up to the 1 of WT.
#
# ## The evidence
#
# Rows in bold decide on their sentence. The others do not: some test a word or a figure beside it, *a stricter reading of
# ours* asks more than the paper says, since we wanted to know, and *another reading of the same words* shows what a number
# would be if the paper meant it in another way.

# %% {"tags": ["hide-input"]}
parts = [
    f'<details id="{each.id}"><summary>{escape(each.claim)} {marked(verdicts[each.id])}</summary>'
    f"{rows_html(rows[each.id], each.decided_by)}</details>"
    for each in headlines
]
HTML("\n".join(parts))

# %% [markdown]
# ## What cannot fail, and what cannot be tested
#
# A theorem, a count or a definition can only come out wrong if our code is wrong. These rows check the code and count for
# nothing. One of them records the only slip that we found in the paper's proof: its inequality (7) is right, and its name is
# not Cauchy-Schwarz.

# %% {"tags": ["hide-input"]}
others = [judged[claim] for claim in apart.rows]
parts = []
for kind, words in KINDS.items():
    if some := [each for each in others if each.claim.kind == kind]:
        summary = f"<summary>{escape(words)}: {len(some)} rows</summary>"
        parts.append(f"<details>{summary}{rows_html(some)}</details>")
HTML("\n".join(parts))

# %% [markdown]
# ## How far this reproduction goes
#
# **Scope.** The whole paper: three methods, two groups, two data sets; Table 1, Figures 1 to 5, the drift, and Proposition
# 3.1; four seeds, 10,000 training images and 50,000 test images, as in the paper. All code was written from the text. The
# authors' repository, `github.com/amoskalev/ginvariance`, held a README and no code when we looked in November 2026. We
# have not written to them. Where the text leaves a choice, we made one and measured the alternatives:
# [What the paper leaves open](open_choices.ipynb).
#
# **What was easy.** The three measures, from their equations. The architecture, which the parameter count gives away. The
# optimiser, the sizes of the splits and the tuning of $\nu$, which are stated. The drift, which is a blend. And the
# proposition, whose proof can be run line by line.
#
# **What was difficult.** The saliency maps: four sentences describe them, and the SI of augmentation moves with every way to
# read those. The scale of LI, which depends on initial weights that the text does not name. And $\nu$, which has to be
# tuned anew for every reading, at the price of most of the training behind this book.
#
# **What the authors could settle in one line each.**
#
# 1. Which initial weights were used? The paper cites Glorot and He; the LI of augmentation tells them apart.
# 2. Does SI average over pairs of an element with itself? The 0.17 on R4 says no, since four such pairs among sixteen
#    already make 0.25. The rows of IR fit either way.
# 3. "Less than 0.9 of a maximum value": the maximum of a map, of an orbit, or of the data set?
# 4. From which baseline are the gradients integrated, in how many steps, and is the target the label or the prediction?
# 5. Does the LI of Table 1 contain the ½ of Equation 2?
# 6. The expectation over $g$ of Equations 1 to 3, inside Equation 4: one random pair per image and step, or all pairs? May
#    the pair contain the identity?
# 7. Are the numbers of DA those of the best validation epoch, and in which orientations was it validated? On T3 the LI of
#    DA doubles between the best epoch and the last.
# 8. Which $\nu$ did the search choose, and from which grid?

# %% {"tags": ["hide-input"]}
settings.save(as_table([*judged.values()]), results, "claims")
summary = [
    [each.id, each.section, each.claim, verdicts[each.id]]
    + [headline_verdict(each, rows[each.id], name) for name in settings.groups]
    for each in headlines
]
columns = ["id", "section", "claim", "verdict", *settings.groups]
settings.save(pd.DataFrame(summary, columns=columns), results, "headlines")

# %% [markdown]
# ## What you saw
#
# Twelve sentences, one verdict each, and beneath each sentence the rows that decide on it. Rows are not counted: a row
# that restates a definition is as long as one that carries the paper. And networks with small logits have a small LI, DI
# and $\sigma_{\max}$ all at once, so agreement on one of these is no independent evidence for the others.
#
# ## Change this, and predict what happens
#
# 1. In `ledger.yaml`, let `sigma-falls` (with any form) hold at `"<= 0.5"`: *reduced considerably*, rather than *reduced*.
# 2. Run the page with `seeds = [0]`.
#
# <details><summary>What happens</summary>
#
# 1. On R4 the headline turns from reproduced to undecided: with the KL divergence and with the normalised error the interval
#    of the ratio has a half in it. On T3 it is undecided already, since the normalised error never reached the invariance
#    that the sentence presupposes.
# 2. Whatever is not exact becomes undecided: one seed has no spread and so no interval.
#
# </details>
