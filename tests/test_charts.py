"""Charts: readable in both themes, and with an alt text that says what they show."""

import io
import re
import warnings
from dataclasses import asdict
from itertools import pairwise
from types import SimpleNamespace

import matplotlib
import numpy as np
import pyarrow as pa
import pytest
from matplotlib.image import imread

from shared.data.schema import PREDICTION
from shared.evaluation import Estimates, evaluate
from shared.evaluation.predictions import with_label
from shared.reports import (
    charts,
    cost_plane,
    data_charts,
    live_loss,
    loss_curve,
    model_charts,
    pareto,
)
from shared.reports.figures import DARK, LIGHT, Chart, contrast

PRICES = np.round(np.random.default_rng(2).lognormal(4, 1, 200), 2)


def predictions(label="", miss=1.3, fail=False):
    items = [{"id": str(i), "title": "t", "price": float(p)} for i, p in enumerate(PRICES)]

    def guess(product):
        return None if fail else float(PRICES[int(product.id)] * miss)

    return evaluate(guess, items, progress=False, label=label)


class Bounded:
    """Estimates of a tenth too much, with intervals that hold every other price."""

    name = "bounded"

    def price(self, products):
        price = PRICES[[int(p.id) for p in products]]
        high = np.where(np.arange(len(price)) % 2, 1.5, 1.2) * price
        return Estimates(
            1.1 * price, low=np.where(high > 1.3 * price, 0.9, 1.05) * price, high=high
        )


def bounded():
    items = [{"id": str(i), "title": "t", "price": float(p)} for i, p in enumerate(PRICES)]
    return evaluate(Bounded(), items, progress=False)


def curve(slope=-0.25):
    rows = [{"pricer": "ridge", "size": n, "mae": 500 * n**slope} for n in (100, 1000, 10_000)]
    rows += [{"pricer": "constant", "size": n, "mae": 100.0} for n in (100, 10_000)]
    ends = [r | {"mae_low": 0.9 * r["mae"], "mae_high": 1.1 * r["mae"]} for r in rows]
    return pa.Table.from_pylist(ends)


def all_charts(evaluation):
    return {
        "coverage": model_charts.coverage_chart(bounded()),
        "line": model_charts.line_chart(
            [1, 10, 100], [5, 9, 7], "t", "pounds", "estimate, dollars"
        ),
        "learning_curves": model_charts.learning_curves(curve()),
        "scatter": charts.scatter(evaluation),
        "error_by_price": charts.error_by_price(evaluation),
        "running_mean": charts.running_mean(evaluation),
        "leaderboard_bars": charts.leaderboard_bars([evaluation.scores]),
        "price_histogram": data_charts.price_histogram(PRICES),
        "length_histogram": data_charts.length_histogram(PRICES),
        "cluster_sizes": data_charts.cluster_sizes("aabccc"),
        "category_bars": data_charts.category_bars(["a", "b", "a"]),
        "length_vs_price": data_charts.length_vs_price(PRICES, PRICES),
    }


CHARTS = all_charts(predictions())


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_colours_have_contrast(theme):
    for text in (theme.text, theme.muted):
        assert contrast(text, theme.surface) >= 4.5
    for mark in (theme.good, theme.bad, theme.plain):
        assert contrast(mark, theme.surface) >= 3
    assert len(set(asdict(theme).values())) == 7  # an SVG is re-coloured by replacing them


def test_contrast_by_hand():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_good_and_bad_differ_for_colour_blind_readers():
    """Without red cones, or without green ones, blue and orange still differ in their blue part."""
    for theme in (LIGHT, DARK):
        blue = [int(colour[5:], 16) for colour in (theme.good, theme.bad)]
        assert abs(blue[0] - blue[1]) > 100


@pytest.mark.parametrize("name", CHARTS)
@pytest.mark.parametrize("dark", [False, True])
def test_a_chart_draws_on_an_opaque_surface_of_its_theme(name, dark):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = imread(io.BytesIO(CHARTS[name].png(dark=dark, dpi=40)))
    surface = (DARK if dark else LIGHT).surface
    corner = "#" + "".join(f"{round(float(c) * 255):02x}" for c in pixels[1, 1, :3])
    assert corner == surface
    assert pixels.shape[-1] == 3 or (pixels[..., 3] == 1).all()
    assert pixels[..., :3].std() > 0.02


@pytest.mark.parametrize("name", CHARTS)
def test_alt_text_states_numbers_and_reaches_the_notebook(name):
    chart = CHARTS[name]
    assert len(re.findall(r"\d", chart.alt)) >= 2
    assert "nan" not in chart.alt
    data, metadata = chart._repr_mimebundle_()
    assert data["text/plain"] == repr(chart) == metadata["image/png"]["alt"] == chart.alt
    assert data["image/png"].startswith(b"\x89PNG")


@pytest.mark.parametrize("name", CHARTS)
def test_axes_have_names_and_units(name):
    figure = CHARTS[name].figure()
    axes = figure.axes[0]
    assert figure.get_suptitle()
    assert axes.get_xlabel()
    assert axes.get_ylabel() or name in ("leaderboard_bars", "category_bars", "coverage")
    labels = axes.get_xlabel() + axes.get_ylabel()
    assert "dollars" in labels or name in (
        *("length_histogram", "category_bars", "coverage", "cluster_sizes"),
    )


def test_hits_and_misses_differ_in_shape_too():
    axes = CHARTS["scatter"].figure().axes[0]
    crosses, dots = [
        x for x in axes.collections if "miss" in x.get_label() or "hit:" in x.get_label()
    ]
    assert len(crosses.get_paths()[0].vertices) != len(dots.get_paths()[0].vertices)


def test_the_finding_is_right():
    result = predictions()
    assert f"{result.scores['hits']:.0%}" in CHARTS["scatter"].figure().get_suptitle()
    assert f"${result.scores['mae']:,.2f}" in CHARTS["scatter"].alt
    assert "a 2; b 1" in CHARTS["category_bars"].alt
    assert "rank correlation 1.00" in CHARTS["length_vs_price"].alt
    assert (
        "Without any estimate: guess."
        in charts.leaderboard_bars([predictions(fail=True).scores]).alt
    )


def test_a_stand_in_is_labelled_in_every_error_chart():
    result = predictions(label="stand-in")
    for name in ("scatter", "error_by_price", "running_mean", "leaderboard_bars"):
        assert "guess (stand-in)" in all_charts(result)[name].alt, name


@pytest.mark.parametrize("name", ["scatter", "error_by_price", "running_mean", "leaderboard_bars"])
def test_nothing_to_draw_is_an_empty_chart_and_no_zero(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chart = all_charts(predictions(fail=True))[name]
        chart.png(dpi=30)
    assert "$0" not in chart.alt


def test_data_charts_refuse_no_numbers():
    with pytest.raises(ValueError, match="nothing to draw"):
        data_charts.price_histogram([float("nan")])
    with pytest.raises(ValueError, match="nothing to draw"):
        data_charts.category_bars([])


def test_svg_follows_the_page_and_is_deterministic():
    chart = CHARTS["leaderboard_bars"]
    svg = chart.svg(dark=None)
    assert svg == chart.svg(dark=None)
    assert svg.startswith('<svg role="img" aria-label="Mean absolute error')
    assert "var(--surface)" in svg
    assert LIGHT.good not in svg
    assert "guess</text>" in svg
    assert DARK.surface in chart.svg(dark=True)


def test_save_writes_png_and_svg_only(tmp_path):
    chart = CHARTS["category_bars"]
    assert chart.save(tmp_path / "a.png", dark=True).read_bytes().startswith(b"\x89PNG")
    assert chart.save(str(tmp_path / "a.svg")).read_text().startswith("<svg")
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        chart.save(tmp_path / "a.pdf")


def test_charts_leave_no_global_state():
    """The incident: a chart changed rcParams, and every plot after it in the notebook with it."""
    before = dict(matplotlib.rcParams)
    CHARTS["scatter"].svg()
    assert dict(matplotlib.rcParams) == before
    chart = Chart(CHARTS["scatter"].draw, "x")
    assert chart.figure() is not chart.figure()


def test_bands_are_drawn_in_order_of_price():
    axes = CHARTS["error_by_price"].figure().axes[0]
    lows = [float(t.get_text().split("-")[0].split("+")[0]) for t in axes.get_xticklabels()]
    assert all(a < b for a, b in pairwise(lows))


def test_learning_curves_say_what_ten_times_the_items_buy():
    assert "ridge: ten times the items, 44% less error" in CHARTS["learning_curves"].alt
    rows = [row for row in curve().to_pylist() if row["pricer"] == "ridge"]
    assert model_charts.power_law(rows) == (pytest.approx(500), pytest.approx(-0.25))


def test_coverage_is_said_beside_what_was_promised():
    alt = CHARTS["coverage"].alt
    assert "90% promised" in alt
    assert "all 50.0%" in alt
    with pytest.raises(ValueError, match="no intervals"):
        model_charts.coverage_chart(predictions())


# Error against what it costs


def priced_at(pricer: str, error: float, cost: float, label: str = "") -> pa.Table:
    rows = [
        {"pricer": pricer, "item_id": str(i), "price_true": 100.0, "price_estimate": 100.0 + error,
         "cost_usd": cost, "seconds": 0.5 if i else None}
        for i in range(5)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, pa.schema(PREDICTION))
    return with_label(table, label)


def test_the_pareto_line_holds_what_nothing_beats_in_both():
    assert pareto([(1, 9), (2, 5), (3, 5), (4, 2), (2, 7)]) == [0, 1, 3]
    assert pareto([(1, 1), (1, 1)]) == [0]


def test_the_cost_plane_says_what_is_worth_its_cost():
    tables = [
        priced_at("luna, plain", 30, 0.001, "stand-in"),
        priced_at("luna, dear and bad", 40, 0.01, "stand-in"),
        priced_at("luna, dear and good", 10, 0.02, "stand-in"),
        priced_at("luna, free", 5, 0.0, "stand-in"),  # has no place on a log axis
    ]
    chart = cost_plane(tables)
    assert chart.alt.startswith("luna (stand-in): 2 of 3 are worth their cost")
    assert "luna, plain (stand-in) $30.00 at 1" in chart.alt
    line = chart.alt.split("Pareto line: ")[1]
    assert "bad" not in line
    assert "good" in line
    assert "dear and good" in chart.svg()
    assert "0.5" in cost_plane(tables, against="seconds").alt
    with pytest.raises(ValueError, match="cost"):
        cost_plane(tables[3:])


def test_a_loss_curve_names_the_lowest_validation_loss():
    def step(i, train, held=None):
        return SimpleNamespace(step=i, train_loss=train, validation_loss=held)

    chart = loss_curve([step(1, 2.0), step(2, 1.0, 1.5), step(3, 0.5, 1.2), step(4, 0.1, 1.4)])
    assert "validation loss lowest, 1.2, at step 3" in chart.alt
    assert "validation" not in loss_curve([step(1, 2.0)]).alt
    with pytest.raises(ValueError, match="no step"):
        loss_curve([])


def test_outside_of_a_notebook_a_live_curve_only_collects():
    steps = [SimpleNamespace(step=i, train_loss=1.0 / i, validation_loss=None) for i in (1, 2)]
    assert live_loss(iter(steps)) == steps
