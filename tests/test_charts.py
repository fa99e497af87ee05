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
from shared.reports.plane import name_places

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


def priced_at(pricer: str, error: float | None, cost: float | None, label: str = "") -> pa.Table:
    estimate = None if error is None else 100.0 + error
    rows = [
        {"pricer": pricer, "item_id": str(i), "price_true": 100.0, "price_estimate": estimate,
         "cost_usd": cost, "seconds": 0.5 if i else None}
        for i in range(5)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, pa.schema(PREDICTION))
    return with_label(table, label)


def test_the_pareto_line_holds_what_nothing_beats_in_both():
    assert pareto([(1, 9), (2, 5), (3, 5), (4, 2), (2, 7)]) == [0, 1, 3]
    assert pareto([(1, 1), (1, 1)]) == [0]


ASKED = [
    priced_at("luna, plain", 30, 0.001, "stand-in"),
    priced_at("luna, dear and bad", 40, 0.01, "stand-in"),
    priced_at("luna, dear and good", 10, 0.02, "stand-in"),
]


def test_the_cost_plane_says_what_nothing_beats():
    chart = cost_plane(ASKED)
    assert chart.alt.startswith("luna (stand-in): 2 of 3 lie on the Pareto line.")
    assert "luna, plain (stand-in) $30.00 at 1;" in chart.alt
    line = chart.alt.split("Pareto line: ")[1]
    assert "bad" not in line
    assert "good" in line
    assert "dear and good" in chart.svg()
    seconds = cost_plane(ASKED, against="seconds")
    assert "0.5" in seconds.alt
    assert "1 of 3 lies on" in seconds.alt
    assert "logarithmic" in chart.figure().axes[0].get_xlabel()


def test_a_free_rival_beats_all_that_cost_more_and_err_more():
    """Incident: "3 of 6 are worth their cost", while the neighbours were better, and free."""
    rival = priced_at("knn", 20, None)  # runs on this machine and reports no cost
    chart = cost_plane(ASKED, free=[rival])
    assert chart.alt.startswith("luna (stand-in): 1 of 3 lies on the Pareto line.")
    assert "knn $20.00, free" in chart.alt
    assert chart.alt.endswith("Pareto line: knn, luna, dear and good (stand-in).")
    better = cost_plane(ASKED, free=[priced_at("constant", 60, None), priced_at("knn", 5, None)])
    title = "luna (stand-in): none of 3 is worth its cost: knn is free and errs less"
    assert better.alt.startswith(f"{title}.")
    assert better.alt.endswith("Pareto line: knn.")
    words = [text.get_text() for text in better.figure().axes[0].texts]
    assert {"knn", "constant", "plain"} <= set(words)
    assert "free" in [text.get_text() for text in better.figure().axes[0].get_xticklabels()]


def test_a_model_that_costs_nothing_is_free_without_being_told():
    chart = cost_plane([*ASKED, priced_at("luna, free", 5, 0.0, "stand-in")])
    assert chart.alt.startswith("luna (stand-in): 1 of 4 lies on the Pareto line.")
    with pytest.raises(ValueError, match="none of these predictions has both an error and a cost"):
        cost_plane([priced_at("luna, free", 5, 0.0)])


def test_what_cannot_be_drawn_is_named():
    chart = cost_plane([*ASKED, priced_at("guess", 5, None), priced_at("mute", None, 0.1)])
    assert "Not drawn, without error or cost: guess, mute." in chart.alt


def test_names_on_the_cost_plane_are_not_crossed_by_intervals():
    """Incident: the interval of its neighbour went through the name "zero-shot"."""
    near = [(90.0, 100.0, 80.0, 120.0), (100.0, 104.0, 85.0, 125.0), (300.0, 60.0, 50.0, 70.0)]
    names = ["zero-shot", "8-shot random", "8-shot similar"]
    boxes = [place.box for place in name_places(near, names, 430, 230)]
    for i, (left, low, right, high) in enumerate(boxes):
        assert left >= 0
        assert right <= 430
        for j, (x, _, bottom, top) in enumerate(near):
            assert i == j or not (left <= x <= right and low <= top and high >= bottom)
        for other in boxes[:i]:
            assert left > other[2] or right < other[0] or low > other[3] or high < other[1]


# Losses


def step(i, train, held=None):
    return SimpleNamespace(step=i, train_loss=train, validation_loss=held)


NOISY = [step(i + 1, 2 - 0.01 * i + (-1) ** i * 0.9) for i in range(100)]


def test_a_loss_curve_names_the_lowest_validation_loss():
    chart = loss_curve([step(1, 2.0), step(2, 1.0, 1.5), step(3, 0.5, 1.2), step(4, 0.1, 1.4)])
    assert chart.alt.startswith("Validation loss 1.5 to 1.4 over 4 steps; lowest, 1.2, at step 3.")
    assert loss_curve([step(1, 2.0)]).alt == "Training loss, each step: 2 after 1 step."
    assert loss_curve([step(1, 2.0, 3.0)]).alt.startswith("Validation loss 3 after 1 step;")
    with pytest.raises(ValueError, match="no step"):
        loss_curve([])


def test_the_noise_of_single_batches_is_no_headline():
    """Incident: "Loss 1.26 to 0.0843": the first batch was a hard one, the last an easy one."""
    assert loss_curve(NOISY).alt == "Training loss, mean of 25 steps: 1.92 to 1.09 over 100 steps."
    axes = loss_curve(NOISY, unit="nats per token").figure().axes[0]
    assert axes.get_ylabel() == "nats per token"
    raw, mean = axes.get_lines()
    assert raw.get_alpha() < 0.6
    assert list(mean.get_xdata()) == list(range(13, 89))
    assert np.ptp(mean.get_ydata()) < 1 < np.ptp(raw.get_ydata())


def test_a_live_curve_says_the_same_as_the_one_drawn_afterwards(monkeypatch):
    shown = []
    handle = SimpleNamespace(update=shown.append)
    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setattr(
        "IPython.display.display", lambda chart, display_id: shown.append(chart) or handle
    )
    assert live_loss(iter(NOISY), every=1e-9, unit="nats") == NOISY
    assert len(shown) > 1
    assert shown[-1].alt == loss_curve(NOISY).alt
    assert shown[-1].figure().axes[0].get_ylabel() == "nats"


def test_outside_of_a_notebook_a_live_curve_only_collects():
    steps = [SimpleNamespace(step=i, train_loss=1.0 / i, validation_loss=None) for i in (1, 2)]
    assert live_loss(iter(steps)) == steps
