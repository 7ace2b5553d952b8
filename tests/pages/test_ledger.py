"""The ledger: its grammar, its rule, and that every row of it can fail."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import ginv
from ginv.pages import evidence
from ginv.pages.evidence import LIMITS, STATISTICS, Tables
from ginv.pages.ledger import (
    NOT,
    REPRODUCED,
    UNDECIDED,
    Claim,
    Headline,
    Verdict,
    headline_verdict,
    holds,
    judge,
    put_all_to_the_test,
    put_to_the_test,
    read_ledger,
    rows_html,
    turning_point,
)

BOOK = Path(__file__).parents[2] / "book"
ROW = """\
- id: a-{metric}
  metric: [SI, LI]
  section: 1
  claim: "{metric} is low"
  statistic: "{metric} of DA"
  value: mean {metric} DA
  holds: "<= 1"
  why: because
  page: table1.html#table-1
"""
LEDGER = read_ledger(BOOK / "ledger.yaml", ["R4", "T3"])
ROWS = [row for headline in LEDGER for row in headline.rows]


@pytest.fixture(scope="module")
def tables():
    return Tables.read(lambda name: pd.read_csv(BOOK / f"results/{name}.csv"), [0, 1, 2, 3])


def written(tmp_path, rows=ROW, headlines="[]"):
    file = tmp_path / "ledger.yaml"
    file.write_text(f"headlines: {headlines}\napart:\n{rows}")
    return file


class TestGrammar:
    def test_a_list_means_all_values_for_each_group(self, tmp_path):
        (apart,) = read_ledger(written(tmp_path), ["R4", "T3"])
        assert [row.id for row in apart.rows] == ["a-si-R4", "a-si-T3", "a-li-R4", "a-li-T3"]
        assert apart.rows[3].claim == "LI is low" and apart.rows[3].value == "mean LI DA"
        (apart,) = read_ledger(written(tmp_path), ["T3"])
        assert [row.group for row in apart.rows] == ["T3", "T3"]

    def test_tables_of_each_go_together(self, tmp_path):
        each = "each: [{metric: SI, word: high}, {metric: LI, word: low}]"
        text = ROW.replace("metric: [SI, LI]", each).replace("is low", "is {word}")
        (apart,) = read_ledger(written(tmp_path, text), ["R4"])
        assert [row.claim for row in apart.rows] == ["SI is high", "LI is low"]

    def test_a_row_may_be_of_one_group_or_of_none(self, tmp_path):
        for asked, ids in (("R4", ["a-si-R4", "a-li-R4"]), ("none", ["a-si", "a-li"])):
            (apart,) = read_ledger(written(tmp_path, ROW + f"  groups: {asked}\n"), ["R4", "T3"])
            assert [row.id for row in apart.rows] == ids

    @pytest.mark.parametrize(
        ("old", "new", "line"),
        [
            ("value: mean", "value: median", "value of a-si-R4 is 'median SI DA'; allowed: mean"),
            ("{metric} DA", "{measure} DA", "row a-{metric} names 'measure'; allowed: group, met"),
            ("  why:", "  given: b\n  why:", "given is 'b R4, b T3'; allowed: ids of rows"),
            ("a-{metric}", "a", "id is 'a-R4, a-T3'; allowed: each once"),
            ("  why: because\n", "", "row a-si-R4 is Claim(id='a-si-R4'"),
            (
                "  page: table1",
                "  kind: odd\n  page: table1",
                "kind of a-si-R4 is 'odd'; allowed: e",
            ),
        ],
    )
    def test_a_slip_is_a_line(self, old, new, line, tmp_path):
        with pytest.raises(ValueError) as raised:
            read_ledger(written(tmp_path, ROW.replace(old, new)), ["R4", "T3"])
        assert str(raised.value).startswith(line) and "\n" not in str(raised.value)

    def test_a_headline_is_decided_by_rows_of_its_own(self, tmp_path):
        headline = "[{id: h, section: 1, claim: c, decided_by: [gone], rows: []}]"
        with pytest.raises(ValueError, match=r"^decided_by of h is 'gone'; allowed: "):
            read_ledger(written(tmp_path, headlines=headline), ["R4"])


@pytest.mark.parametrize("group", ["R4", "T3"])
def test_the_ledger_can_be_read_for_one_group(group, tables):
    """Though some rows that decide are of the other alone."""
    for headline in read_ledger(BOOK / "ledger.yaml", [group])[:-1]:
        found = put_all_to_the_test(headline.rows, tables)
        both = put_all_to_the_test([row for row in ROWS if row in headline.rows], tables)
        assert headline_verdict(headline, found) == headline_verdict(headline, both, group)


class TestRule:
    @pytest.mark.parametrize(
        ("found", "threshold", "verdict", "turns"),
        [
            ([0.96, 0.97, 0.98], ">= 0.9", "reproduced", "0.945"),
            ([0.8, 0.9, 1.0], ">= 0.95", "undecided", ""),
            ([0.8, 0.81, 0.82], ">= 0.95", "not reproduced", "0.835"),
            ([0.8, 0.81, 0.82], "<= 0.95", "reproduced", "0.835"),
            ([0.8, 0.81, 0.82], "< 0.5", "not reproduced", "0.785"),
            ([0.96], ">= 0.95", "undecided", ""),
            ([1.0, 3.0], "1.5 to 2.5", "reproduced", "0 of the room"),
            ([2.0], "1.5 to 2.5", "undecided", ""),
            ([1.0, 3.0], "2.5 to 3.5", "not reproduced", "2 of the room"),
            ((0.5, 0.4, 0.6), "> 0.4", "undecided", ""),
            ((0.5, 0.4, 0.6), ">= 0.4", "reproduced", "0.4"),
            (7, ">= 7", "reproduced", "7"),
            (7, "> 7", "not reproduced", "7"),
            (1.0, "1 to 1", "reproduced", ""),
        ],
    )
    def test_a_verdict_and_where_it_turns(self, found, threshold, verdict, turns):
        value, low, high, judged = judge(found, threshold)
        assert judged == verdict
        assert turning_point(value, low, high, threshold, judged) == turns

    def test_at_the_point_where_it_turns_it_does(self):
        """By a little more than the digits that are shown."""
        generator = np.random.default_rng(0)
        for _ in range(200):
            found = generator.normal(1, 0.3, 4)
            relation, limit = generator.choice(["<=", ">="]), generator.normal(1, 1)
            *numbers, verdict = judge(found, f"{relation} {limit}")
            if verdict == "undecided":
                continue
            turns = float(turning_point(*numbers, f"{relation} {limit}", verdict))
            step = math.copysign(0.01 * abs(turns) + 0.01, turns - limit)
            assert judge(found, f"{relation} {turns - step}")[-1] == verdict
            assert judge(found, f"{relation} {turns + step}")[-1] == "undecided"

    @pytest.mark.parametrize("threshold", ["> 0", "<= 0", "0 to 1"])
    @pytest.mark.parametrize("found", [[math.nan, 1.0], math.nan, (math.nan, 0.0, 1.0)])
    def test_no_number_is_no_verdict(self, found, threshold):
        assert judge(found, threshold)[-1] == "undecided"

    @pytest.mark.parametrize("limit", [">= 0.9", "0.9 to 1"])
    def test_what_presupposes_a_lost_claim_is_undecided(self, limit, tables):
        """And says what it lacks; of the other group it stands."""
        rest = dict(statistic="s", why="w", page="p", section="1", claim="c")
        claims = [
            Claim(
                f"{id}-{group}", value="mean SI WT", holds=holds, given=given, group=group, **rest
            )
            for group in ("R4", "T3")
            for id, holds, given in (
                ("base", "> 1.5" if group == "R4" else limit, ""),
                ("upon", ">= 0.5", "base"),
            )
        ]
        found = {v.claim.id: v for v in put_all_to_the_test(claims, tables)}
        assert (found["base-R4"].verdict, found["base-T3"].verdict) == (NOT, REPRODUCED)
        assert (found["upon-R4"].verdict, found["upon-R4"].lacks) == (UNDECIDED, "base-R4")
        assert "presupposes base-R4" in rows_html([found["upon-R4"]])
        assert (found["upon-T3"].verdict, found["upon-T3"].lacks) == (REPRODUCED, "")

    @pytest.mark.parametrize(
        ("rows", "whole", "of_r4"),
        [
            ({"R4": "reproduced", "T3": "reproduced"}, "reproduced", "reproduced"),
            ({"R4": "reproduced", "T3": "undecided"}, "undecided", "reproduced"),
            ({"R4": "undecided", "T3": "not reproduced"}, "not reproduced", "undecided"),
        ],
    )
    def test_a_headline_has_both_groups_in_it(self, rows, whole, of_r4):
        claims = [Claim(f"a-{group}", "1", "c", group=group) for group in rows]
        found = [Verdict(c, verdict=v) for c, v in zip(claims, rows.values(), strict=True)]
        found.append(Verdict(Claim("b-R4", "1", "c", "ours", group="R4"), verdict="not reproduced"))
        headline = Headline("h", "1", "c", ["a"], [])
        assert headline_verdict(headline, found) == whole
        assert headline_verdict(headline, found, "R4") == of_r4

    def test_text_is_escaped(self):
        claim = Claim("a", "1", "x < y & <b>", statistic="<i>", why="&", page="p.html#a")
        html = rows_html([Verdict(claim, 1.0, 0.5, 2.0, "<= 1", "undecided")])
        assert "x &lt; y &amp; &lt;b&gt;" in html and "claimed: &lt;= 1" in html


class TestEveryRow:
    """What hangs on the tables is tried on tables of chance; the rest on code that is broken."""

    def test_each_statistic_and_limit_is_used(self):
        named = {row.value.split()[0] for row in ROWS if row.value}
        named |= {word for row in ROWS for word in row.holds.split()}
        assert {*STATISTICS, *LIMITS} <= named

    def test_can_fail_and_can_hold(self, tables, monkeypatch):
        generator = np.random.default_rng(0)
        sweep = evidence.read_sweep()
        seen = {row.id: set() for row in ROWS if row.kind in ("evidence", "ours")}
        fixed = ("cost_ratio", "kept_on_orbit_sums")
        seen = {row.id: set() for row in ROWS if row.id in seen and not row.value.startswith(fixed)}
        for _ in range(120):
            drawn = Tables(*(by_chance(getattr(tables, name), generator) for name in vars(tables)))
            flipped = sweep.assign(accuracy=sweep.accuracy * generator.choice([-1, 1]) + 100)
            monkeypatch.setattr(evidence, "read_sweep", lambda flipped=flipped: flipped)
            for row in ROWS:
                if row.id in seen and len(seen[row.id]) < 2:
                    found = put_to_the_test(row, drawn)
                    if not math.isnan(found.value):  # as where no degree of drift is useful
                        seen[row.id].add(holds(found.value, found.threshold))
        one_sided = sorted(id for id, sides in seen.items() if len(sides) < 2)
        assert not one_sided, " ".join(one_sided)

    @pytest.mark.parametrize(
        "broken",
        ["product", "act", "data", "map", "layers", "flow", "gradient", "measures", "costs"],
    )
    def test_checks_of_our_code_see_that_it_is_broken(self, broken, tables, monkeypatch):
        evidence._starts.cache_clear()
        names = globals()[f"break_{broken}"](monkeypatch)
        for row in ROWS:
            if row.value.split()[:1] and row.value.split()[0] in names and row.group != "T3":
                found = put_to_the_test(row, tables)
                assert found.verdict == "not reproduced", (row.id, found.value)
                names = names - {row.value.split()[0]}
        assert not names
        evidence._starts.cache_clear()


def by_chance(table, generator):
    """Columns in another order, times a factor at each place, and one of each method; shares stay
    shares.
    """
    drawn, count = table.copy(), len(table)
    network = [name for name in table.index.names if name != "beta"]
    common = generator.uniform(0, 1, count)[table.groupby(network).ngroup()]  # one a network
    sizes = {}
    for method in (*table.index.unique("method"),) if "method" in table.index.names else ():
        sizes[method] = 10.0 ** generator.choice([-6, 0, 0, 4])
    for name in drawn:
        values = drawn[name].to_numpy(float)
        values = generator.permutation(np.where(np.isnan(values), np.nanmean(values), values))
        shares = common if generator.uniform() < 0.5 else generator.uniform(0, 1, count)
        if name.startswith(("accuracy", "all_right", "same_wrong")) or "ratio" in name:
            most = 99.0 if name.startswith("accuracy") and "ratio" not in name else 1.0
            values = np.clip(shares ** generator.choice([0.02, 0.2, 5]), 0.01, 0.999) * most
        elif name.startswith("SI"):
            values = shares ** generator.choice([1e-5, 0.01, 1, 5])
        else:
            size = generator.choice([0, 0.01, 3])
            values = np.abs(values) * np.exp(size * generator.normal(size=count))
            values = values + generator.choice([1e-12, 1e-9, 1e-3])
            if sizes:
                values = values * table.index.get_level_values("method").map(sizes).to_numpy()
        drawn[name] = values
    return drawn


class WrongProduct(ginv.Rotations):
    def product(self, g, h):
        return (g + 2 * h) % self.order


class WrongAction(ginv.Rotations):
    def act(self, g, x):
        return x.roll(g, -1)


def break_product(monkeypatch):
    monkeypatch.setattr(evidence, "group_named", lambda name: WrongProduct(4))
    return {"broken_axioms"}


def break_act(monkeypatch):
    monkeypatch.setattr(evidence, "group_named", lambda name: WrongAction(4))
    return {"broken_action"}


def break_data(monkeypatch):
    data = ginv.load_dataset()
    data.test.images[:2] = data.train.images[:2] + 0.0
    data.test.images[2:] *= 2
    data.test.labels[:] = 3
    monkeypatch.setattr(evidence, "load_dataset", lambda *_: data)
    return {"off_size", "shared", "off_scale"}


def break_map(monkeypatch):
    monkeypatch.setattr(evidence, "saliency_map", lambda x: x.abs())
    return {"off_recipe"}


def break_layers(monkeypatch):
    class Larger(ginv.MLP):
        def __init__(self, group=None, **options):
            super().__init__(group, width=140 if group else 150, **options)

    monkeypatch.setattr(evidence, "MLP", Larger)
    return {"parameters", "parameters_added"}


def break_flow(monkeypatch):
    monkeypatch.setattr(evidence, "_decayed", lambda W, e, t: W * (1 + t))
    monkeypatch.setattr(torch.linalg, "eigvalsh", lambda x: torch.full((1,), 0.5))
    return {"largest_growth", "kept_on_orbit_sums", "off_spectrum", "largest_norm_of_product"}


def break_gradient(monkeypatch):
    monkeypatch.setattr(torch, "outer", lambda a, b: 2 * a[:, None] * b)
    return {"gradient_error"}


def break_measures(monkeypatch):
    monkeypatch.setattr(evidence, "distribution_invariance", lambda x: torch.ones(x.shape[1]) * 1e9)
    return {"most_di_over_li", "most_di_over_li_of_constants"}


def break_costs(monkeypatch):
    monkeypatch.setattr(evidence, "_cost", lambda what, group, method: "WDI".index(method[0]) + 1.0)
    return {"cost_ratio"}
