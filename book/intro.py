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
# # Does it know, or does it only look so?
#
# Train a network on digits in all orientations and it classifies them in all orientations. Is it *invariant*, then? Does
# it see one digit turned, or has it learned four different digits that bear one name?
#
# *On genuine invariance learning without weight-tying* {cite}`moskalev2023genuine` asks this and answers by measuring.
# This book does the paper again from the data. The numbers on a page come from the code on that page, and where ours and
# the paper's part ways the page says so.

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
# folder for the picture of this page
results = "results"  # @param {type: "string"}

# %% {"tags": ["hide-input"]}
from html import escape
from pathlib import Path

from IPython.display import HTML, Markdown

from ginv.pages import Settings, refuse_unknown
from ginv.pages.figures import GROUP_NAMES, group_panels, plot_methods, use_style
from ginv.pages.ledger import STYLE, marked

refuse_unknown()  # a parameter by a wrong name
settings = Settings(profile, group, seeds, device, results)
use_style()
table = settings.table(settings.train())
runs = table.pivot_table(index=["group", "method", "seed"], columns="metric", values="value")

# %% [markdown]
# ## The answer in one figure
#
# Three networks of one size. In one, invariance is built in (weight-tying, WT). One was trained on augmented data (DA). One
# was in addition penalised for logits that change with the orientation (invariance regularisation, IR).

# %% {"mystnb": {"figure": {"caption": "A marker per trained network. Upwards: accurate over all orientations. To the right: a network that looks at the same pixels of a digit in each orientation (saliency invariance, SI).", "name": "fig-answer"}, "image": {"alt": "Accuracy against saliency invariance, a marker per trained network, one panel per group"}}, "tags": ["hide-input"]}
panels = group_panels(settings)
plot_methods(panels, runs)
if settings.profile == "paper" and len(panels) == 2:  # the picture of the README
    Path(results).mkdir(exist_ok=True)
    panels["R4"].figure.savefig(Path(results) / "answer.png")

# %% {"tags": ["hide-input"]}
means = runs.groupby(["group", "method"]).mean()


def answer(name):
    wt, da, ir = (means.loc[name, method] for method in ("WT", "DA", "IR"))
    return (
        f"- {GROUP_NAMES[name]}: accuracy {wt.accuracy:.1f} % (WT), {da.accuracy:.1f} % (DA), "
        f"{ir.accuracy:.1f} % (IR), at SI {wt.SI:.2f}, {da.SI:.2f} and {ir.SI:.2f}."
    )


Markdown("\n".join(map(answer, settings.groups)) + f"\n\nRun with {settings.label}.")

# %% [markdown]
# So a network can be right about every orientation without being invariant: it may look at other pixels in each. It can be
# made to look at the same ones, and what that costs is the second half of the paper.

# %% [markdown]
# ## What of the paper holds
#
# A few sentences carry the paper. Whether each was reproduced is computed, from what the chapters measured; the
# [ledger](claims.ipynb) has the evidence behind each.

# %% {"tags": ["hide-input"]}
headlines = settings.load(results, "headlines")
cells = [f"<td>{escape(claim)}</td>" for claim in headlines.claim]
shown = [*headlines.columns.intersection(settings.groups), "verdict"]
for column in shown:
    verdicts = [marked(v, short=column != "verdict") for v in headlines[column]]
    cells = [f'{c}<td class="verdict">{v}</td>' for c, v in zip(cells, verdicts)]
head = "".join(f"<th>{name}</th>" for name in ("claim", *shown))
HTML(
    "\n".join(
        [
            f"{STYLE}<table class='ledger'><tr>{head}</tr>",
            *(f"<tr>{c}</tr>" for c in cells),
            "</table>",
        ]
    )
)

# %% [markdown]
# ## The chapters
#
# - [Table 1: three ways to invariance](table1.ipynb): the three models, how they are trained, and the paper's Table 1
#   beside ours.
# - [What the network looks at](metrics.ipynb): the measures from their equations, Figures 1 to 3, and how far to trust SI.
# - [Drift: when the data leave](drift.ipynb): what becomes of invariance and accuracy when digits turn into garments;
#   Figure 4.
# - [Spectral decay](spectral_decay.ipynb): Proposition 3.1, run step by step, and what becomes of the sensitivity of
#   networks; Figure 5.
# - [The ledger: claim by claim](claims.ipynb): the ledger.
# - [What the paper leaves open](open_choices.ipynb): what the paper leaves open, and what each choice does to Table 1.
# - [The price of invariance](price.ipynb): what invariance costs from a random start, from a symmetric one, by averaging and by
#   tying; and networks that find their own orbits.
# - [Your own model](your_model.ipynb): from a network of your own to a verdict, and what to do about it.
# - [What it costs](performance.ipynb): what all this costs, where the time goes and how it grows.
# - [A thousand runs](scaling.ipynb): a sweep of a thousand runs, and what it costs on one machine and on many.
#
# ## Run it
#
# In a clone of the project, `make book` trains everything that is not there yet, executes every chapter and renders this
# book; `make book PROFILE=quick` is a look at it in minutes. A single chapter takes its parameters by name:
#
# ```
# papermill book/table1.ipynb out.ipynb -p profile quick -p group T3 -y 'seeds: [0, 1]'
# ```
#
# The measures work on any PyTorch classifier of images:
#
# ```python
# import ginv
#
# print(ginv.measure(model, images, labels, ginv.Rotations(4)))
# ```

# %% [markdown]
# ## References
#
# ```{bibliography}
# ```
