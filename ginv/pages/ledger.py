"""The ledger: claims of the paper, put to the test by one rule. `book/ledger.yaml` has them.

A row of it is a table; a list of values in it means all of them, as in a grid, and so does each
table of `each`. Its `value` names a statistic of `ginv.pages.evidence` with the words that it
takes, its `holds` where the claim says that it lies: "<= 0.5", "1 to 2", or a limit by name. Its
`given`, if any, is the claim that it presupposes.
"""

import math
import operator
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from html import escape
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from ginv.pages.evidence import LIMITS, STATISTICS, Found, Tables, interval
from ginv.recipe import GROUPS
from ginv.refuse import require
from ginv.runs.strict_yaml import read_yaml

KINDS = {
    "evidence": "what the paper says",
    "ours": "a stricter reading of ours",
    "reading": "another reading of the same words",
    "check": "a theorem, or a check of our own code",
    "untestable": "what cannot be tested here",
}
REPRODUCED, UNDECIDED, NOT = "reproduced", "undecided", "not reproduced"
VERDICTS = (REPRODUCED, UNDECIDED, NOT)
COLUMNS = ["id", "kind", "section", "claim", "statistic", "value", "low", "high"]
COLUMNS += ["threshold", "verdict", "turns"]
OPERATORS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True)
class Claim:
    """A row of the ledger, for one group or for none."""

    id: str
    section: str
    claim: str
    kind: str = "evidence"
    statistic: str = ""  # in words
    value: str = ""
    given: str = ""  # the id, without the group, of the claim that this one presupposes
    holds: str = ""
    why: str = ""  # this threshold; or why it cannot be tested
    page: str = ""
    group: str | None = None


@dataclass(frozen=True)
class Headline:
    """A sentence that the paper stands for, and the claims whose verdicts decide on it."""

    id: str
    section: str
    claim: str
    decided_by: list[str]
    rows: list[Claim]


@dataclass(frozen=True)
class Verdict:
    """What became of a claim."""

    claim: Claim
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    threshold: str = ""
    verdict: str = "not testable"
    turns: str = ""  # the threshold at which a decided verdict is one no longer
    lacks: str = ""  # the claim that it presupposes, where that is not reproduced


def read_ledger(file: Path, groups: Sequence[str]) -> list[Headline]:
    """The ledger for some groups; the last headline has no claim, and the rows that belong to none.

    Raises ValueError, in one line, for a row that is not as it should be.
    """
    content: Any = read_yaml(file)
    fits = isinstance(content, dict) and {*content} == {"headlines", "apart"}
    require(fits, str(file), content, "a table of headlines and of what is apart")
    found = []
    for entry in content["headlines"]:
        known = {"id", "section", "claim", "decided_by", "rows"}
        require({*entry} == known, "headline", entry, ", ".join(sorted(known)))
        rows = [row for table in entry["rows"] for row in _expand(table, groups)]
        found.append(Headline(**entry | {"section": str(entry["section"]), "rows": rows}))
        of_all = [row for table in entry["rows"] for row in _expand(table, GROUPS)]
        names = {_bare(row) for row in of_all if row.kind == "evidence"}
        missing = ", ".join({*entry["decided_by"]} - names)
        require(not missing, f"decided_by of {entry['id']}", missing, ", ".join(sorted(names)))
    apart = [row for table in content["apart"] for row in _expand(table, groups)]
    found.append(Headline("", "", "", [], apart))
    every = [row for headline in found for row in headline.rows]
    given = {(row.given, row.group) for row in every if row.given}
    unknown = given - {(_bare(row), row.group) for row in every}
    require(
        not unknown,
        "given",
        ", ".join(sorted(f"{id} {group}" for id, group in unknown)),
        "ids of rows",
    )
    ids = [row.id for row in every]
    twice = sorted({id for id in ids if ids.count(id) > 1})
    require(not twice, "id", ", ".join(twice), "each once")
    return found


def _bare(claim: Claim) -> str:
    """Its id without the group."""
    return claim.id.removesuffix(f"-{claim.group}") if claim.group else claim.id


def _expand(table: dict, groups: Sequence[str]) -> Iterator[Claim]:
    """All claims of a row: for all combinations of its values, and for each group."""
    require(isinstance(table, dict) and "id" in table, "row", table, "a table with an id")
    names = {each.name for each in fields(Claim)} - {"group"}
    texts = {name: str(value) for name, value in table.items() if name in names}
    others = {k: v for k, v in table.items() if k not in names and k not in ("each", "groups")}
    lists = [
        [(key, v) for v in (value if isinstance(value, list) else [value])]
        for key, value in others.items()
    ]
    asked = table.get("groups", "all")
    own = [None] if asked == "none" else [g for g in groups if asked in ("all", g)]
    for given in table.get("each", [{}]):
        for pairs in product(*lists):
            words = {**dict(pairs), **given}
            for group in own:
                all_words = words | {"group": group}
                try:
                    filled = {name: text.format(**all_words) for name, text in texts.items()}
                except (KeyError, IndexError) as error:
                    allowed = ", ".join(sorted(all_words))
                    raise ValueError(
                        f"row {table['id']} names {error}; allowed: {allowed}"
                    ) from None
                filled["id"] = filled["id"].lower().replace("_", "-") + (
                    f"-{group}" if group else ""
                )
                claim = Claim(**filled, group=group)
                _check(claim)
                yield claim


def _check(claim: Claim) -> None:
    require(claim.kind in KINDS, f"kind of {claim.id}", claim.kind, ", ".join(KINDS))
    if claim.kind != "untestable":
        name = (claim.value.split() or [""])[0]
        require(name in STATISTICS, f"value of {claim.id}", claim.value, ", ".join(STATISTICS))
        fits = bool(claim.holds and claim.why and claim.page and claim.statistic)
        require(fits, f"row {claim.id}", claim, "with statistic, holds, why and page")


def judge(found: Found, threshold: str) -> tuple[float, float, float, str]:
    """Mean, interval and verdict of a statistic against where the claim says that it lies.

    Reproduced: the whole interval is on the claimed side; not reproduced: all of it is on the
    other; undecided: the threshold lies within it, or there is none, as with one seed. What is
    exact has no interval and needs none. A range, "1 to 2", already holds the spread of both sides,
    so that the mean alone is compared, of more than one seed.
    """
    is_exact = isinstance(found, int | float)
    given = (found, math.nan, math.nan) if is_exact else found
    given = given if isinstance(given, tuple) else interval(given)
    # As they are saved, so that a verdict hangs on nothing else
    value, low, high = (float(f"{number:.6g}") for number in given)
    if math.isnan(value):
        return value, low, high, UNDECIDED
    if not is_exact and math.isnan(low):
        return value, low, high, UNDECIDED
    if is_exact or " to " in threshold:
        return value, low, high, REPRODUCED if holds(value, threshold) else NOT
    sides = {holds(end, threshold) for end in (low, high)}
    return value, low, high, UNDECIDED if len(sides) > 1 else REPRODUCED if True in sides else NOT


def holds(value: float, threshold: str) -> bool:
    """Whether a value is where a threshold ("<= 0.5", "1 to 2") says."""
    if " to " in threshold:
        low, high = map(float, threshold.split(" to "))
        return low <= value <= high
    relation, number = threshold.split()
    return OPERATORS[relation](value, float(number))


def turning_point(value: float, low: float, high: float, threshold: str, verdict: str) -> str:
    """The threshold at which a decided verdict is decided no longer.

    It is the end of the interval that is nearest to the threshold; of a range, the share of its
    width that it would have.
    """
    if verdict == UNDECIDED:
        return ""
    if " to " in threshold:
        least, most = map(float, threshold.split(" to "))
        reach = (most - least) / 2
        return f"{abs(value - (least + most) / 2) / reach:.2g} of the room" if reach else ""
    is_below = threshold.startswith("<")
    ends = (value, value) if math.isnan(low) else (low, high)
    return f"{ends[is_below == (verdict == REPRODUCED)]:.3g}"


def put_all_to_the_test(claims: Sequence[Claim], tables: Tables) -> list[Verdict]:
    """A verdict each; what presupposes a claim that is not reproduced is undecided."""
    found = [put_to_the_test(claim, tables) for claim in claims]
    contradicted = {(_bare(v.claim), v.claim.group) for v in found if v.verdict == NOT}
    return [
        replace(v, verdict=UNDECIDED, turns="", lacks=f"{v.claim.given}-{v.claim.group}")
        if (v.claim.given, v.claim.group) in contradicted
        else v
        for v in found
    ]


def put_to_the_test(claim: Claim, tables: Tables) -> Verdict:
    """Compute its statistic, and judge it, as if it presupposed nothing."""
    if claim.kind == "untestable":
        return Verdict(claim)
    name, *words = shlex.split(claim.value)
    found = STATISTICS[name](tables, claim.group, *words)
    found = [*found] if isinstance(found, Iterable) and not isinstance(found, tuple) else found
    threshold = threshold_of(claim, found)
    value, low, high, verdict = judge(found, threshold)
    turns = turning_point(value, low, high, threshold, verdict)
    return Verdict(claim, value, low, high, threshold, verdict, turns)


def threshold_of(claim: Claim, found: Found) -> str:
    """With the limits that it names put in, which may hang on the spread of what was found."""
    first, *rest = shlex.split(claim.holds)
    if first in LIMITS:
        return LIMITS[first](found, claim.group, *rest)
    return " ".join([first, *(LIMITS[w](found, claim.group) if w in LIMITS else w for w in rest)])


def headline_verdict(headline: Headline, found: Sequence[Verdict], group: str | None = None) -> str:
    """Reproduced if all that decide on it are, not reproduced if one of them is not, or undecided.

    group: by the rows of one group alone.
    """
    deciding = [
        each.verdict
        for each in found
        if _bare(each.claim) in headline.decided_by and group in (None, each.claim.group)
    ]
    if NOT in deciding:
        return NOT
    return REPRODUCED if {*deciding} == {REPRODUCED} else UNDECIDED


def as_table(found: Sequence[Verdict]) -> pd.DataFrame:
    """A row a claim; columns `COLUMNS`."""
    rows = [
        [getattr(v if hasattr(v, name) and name != "claim" else v.claim, name) for name in COLUMNS]
        for v in found
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


MARKS = {
    REPRODUCED: ("●", "#00664A"),
    UNDECIDED: ("◆", "#7A4900"),
    NOT: ("✕", "#A33600"),
    "not testable": ("–", "#555555"),
}
STYLE = """<style>
.ledger {width: 100%; border-collapse: collapse; font-size: .85em}
.ledger.rows td:nth-child(1) {width: 30%}
.ledger.rows td:nth-child(2) {width: 36%}
.ledger .verdict {overflow-wrap: normal; min-width: 2em}
.ledger td, .ledger th {vertical-align: top; text-align: left; padding: .4em;
  border-top: 1px solid #8888; white-space: normal; overflow-wrap: anywhere}
.ledger th {white-space: nowrap}
.ledger a {color: #0b4f9e !important} /* the page may be dark, and a cell of output is not */
.ledger small {opacity: .85}
</style>"""


def marked(verdict: str, *, short: bool = False) -> str:
    """A verdict in HTML, to be told without its colour; short: its mark alone."""
    mark, colour = MARKS[verdict]
    sign = f'<b style="color: {colour}" role="img" aria-label="{verdict}">{mark}</b>'
    return sign if short else f"{sign} {verdict}"


def headlines_html(
    headlines: Sequence[Headline], found: Sequence[Verdict], groups: Sequence[str], page: str = ""
) -> str:
    """A line a headline, with its verdict and that of each group; page: where its rows are."""
    head = "".join(f"<th>{name}</th>" for name in groups)
    lines = [STYLE, f'<table class="ledger"><tr><th>claim</th>{head}<th>verdict</th></tr>']
    for each in headlines:
        of_groups = [headline_verdict(each, found, group) for group in groups]
        cells = "".join(f'<td class="verdict">{marked(v, short=True)}</td>' for v in of_groups)
        link = f'<a href="{page}#{each.id}">{escape(each.claim)}</a>'
        link += f" <small>(Section {each.section})</small>"
        whole = f'<td class="verdict"><b>{marked(headline_verdict(each, found))}</b></td>'
        lines.append(f"<tr><td>{link}</td>{cells}{whole}</tr>")
    return "\n".join([*lines, "</table>"])


def rows_html(found: Sequence[Verdict], deciding: Collection[str] = ()) -> str:
    """Rows of the ledger; the groups of one claim share a line; in bold, those that decide."""
    lines: dict[tuple, list[Verdict]] = {}
    for each in found:
        c = each.claim
        bold = _bare(c) in deciding
        line = c.section, c.claim, c.statistic, c.kind, c.why, c.page, bold
        lines.setdefault(line, []).append(each)
    html = [STYLE, '<table class="ledger rows">']
    for (section, claim, words, kind, why, page, bold), some in lines.items():
        aside = kind in ("ours", "reading")
        ours = f"<br><small><i>{KINDS[kind]}</i></small>" if aside else ""
        name = page.partition("#")[0].removesuffix(".html")
        text = f"<b>{escape(claim)}</b>" if bold else escape(claim)
        link = f' <a href="{page}">measured in: {name}</a>' if page else ""
        html.append(
            f"<tr><td>{text} <small>(Section {section})</small>{ours}</td>"
            f"<td>{escape(words)}<br><small>{escape(why)}{link}</small></td>"
            f"<td>{''.join(map(_result_html, some))}</td></tr>"
        )
    return "\n".join([*html, "</table>"])


def _result_html(found: Verdict) -> str:
    numbers = ""
    if found.threshold:
        numbers = f"{found.value:.4g}"
        if not math.isnan(found.low):
            numbers += f" [{found.low:.3g}, {found.high:.3g}]"
        numbers += f"; claimed: {escape(found.threshold)}<br>"
    if found.lacks:
        numbers += f"presupposes {found.lacks}, which is not reproduced<br>"
    has_point = found.turns and found.claim.kind != "check"
    turns = f" <small>(turns at {escape(found.turns)})</small>" if has_point else ""
    id = found.claim.id
    return f'<div id="{id}"><small>{id}</small><br>{numbers}{marked(found.verdict)}{turns}</div>'
