"""Seconds per shape: known, interpolated, extrapolated, and learned without trusting a single stall."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serve_samples import HD, PORTRAIT, UHD, VGA, sample_latency

from engines.spec import CanvasShape
from serve_app.latency import ASSUMED_S_PER_PX, Latency, LatencyKey, LatencyModel, LatencyTable, Origin

SMALL, MIDDLE, LARGE = CanvasShape(100, 100), CanvasShape(100, 200), CanvasShape(100, 400)


def told(*values_s: float, begin_s: float = 0.010) -> LatencyModel:
    """A model that knew one shape and then saw these."""
    model = sample_latency({("full", VGA): (begin_s,)})
    for took_s in values_s:
        model.observe("full", VGA, 1, took_s)
    return model


def test_what_was_measured_is_predicted():
    """A table's own entries come back as they are, and only those are called measured."""
    model = sample_latency()

    assert [model.predict_s("full", VGA, batch) for batch in (1, 2, 4)] == [0.010, 0.016, 0.028]
    assert [model.is_measured("full", VGA, batch) for batch in (1, 3, 4, 8)] == [True, False, True, False]
    assert not model.is_measured("other", VGA, 1)


@pytest.mark.parametrize(
    ("batch", "run_s"), [(3, 0.022), (8, 0.056), (6, 0.042)], ids=["between", "twice the last", "beyond"]
)
def test_other_batches_of_a_measured_canvas_are_linear(batch, run_s):
    """Between its neighbours on the line, beyond the largest in proportion."""
    assert sample_latency().predict_s("full", VGA, batch) == pytest.approx(run_s)


def test_a_batch_below_the_first_measured_one_is_in_proportion():
    """Half the batch, half the time."""
    model = LatencyModel()
    model.observe("full", VGA, 4, 0.4)

    assert model.predict_s("full", VGA, 1) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("canvas", "run_s"),
    [
        (CanvasShape(100, 300), 0.3), (CanvasShape(300, 100), 0.3), (CanvasShape(100, 800), 1.0),
        (CanvasShape(50, 100), 0.05),
    ],
    ids=["between", "turned", "above", "below"],
)  # fmt: skip
def test_another_canvas_is_interpolated_by_pixels(canvas, run_s):
    """Pixels count, not shape; outside the measured ones time is proportional."""
    model = sample_latency({("full", SMALL): (0.1,), ("full", MIDDLE): (0.1,), ("full", LARGE): (0.5,)})

    assert model.predict_s("full", canvas, 1) == pytest.approx(run_s)


def test_two_canvases_of_as_many_pixels_are_averaged():
    """Neither of two orientations is the truth for a third shape of that size."""
    model = sample_latency({("full", CanvasShape(100, 400)): (0.3,), ("full", CanvasShape(400, 100)): (0.5,)})

    assert model.predict_s("full", CanvasShape(200, 200), 1) == pytest.approx(0.4)
    assert model.predict_s("full", CanvasShape(200, 400), 1) == pytest.approx(0.8)


def test_an_unknown_canvas_and_batch_is_interpolated_in_both():
    """First every batch size over the canvases, then over the batch sizes."""
    model = sample_latency({("full", SMALL): (0.1, 0.2), ("full", LARGE): (0.4, 0.8)})

    assert model.predict_s("full", MIDDLE, 1) == pytest.approx(0.2)
    assert model.predict_s("full", MIDDLE, 2) == pytest.approx(0.4)
    assert model.predict_s("full", MIDDLE, 4) == pytest.approx(0.8)


def test_without_any_measurement_pixels_are_priced():
    """Of this model: what another one takes says nothing."""
    model = sample_latency()

    assert model.predict_s("other", HD, 2) == pytest.approx(2 * HD.num_px * ASSUMED_S_PER_PX)


def test_the_first_observation_replaces_what_was_assumed():
    """Of its own shape, and of those that are worked out from it, at once."""
    model = LatencyModel()
    before = [model.predict_s("full", canvas, 1) for canvas in (VGA, UHD)]
    model.observe("full", VGA, 1, 0.5)
    after = [model.predict_s("full", canvas, 1) for canvas in (VGA, UHD)]

    assert before == pytest.approx([ASSUMED_S_PER_PX * canvas.num_px for canvas in (VGA, UHD)])
    assert after == pytest.approx([0.5, 0.5 * UHD.num_px / VGA.num_px])
    assert model.entries() == {LatencyKey("full", VGA, 1): Latency(0.5, 0.05, 1)}


@pytest.mark.parametrize("stall_s", [60.0, 1e-9], ids=["slow", "quick"])
def test_a_single_stall_moves_a_prediction_little(stall_s):
    """However long it took: an eighth at most, and twenty usual batches later nothing is left of it."""
    assert told(stall_s).predict_s("full", VGA, 1) == pytest.approx(0.010, rel=0.125)
    assert told(stall_s, *[0.010] * 40).predict_s("full", VGA, 1) == pytest.approx(0.010, rel=0.01)


def test_one_stall_in_twenty_is_not_learned():
    """Over a long run the prediction stays near what is usual."""
    usual = [0.0095, 0.0105] * 10
    model = told(*([0.5, *usual[1:]] * 30))

    assert model.predict_s("full", VGA, 1) == pytest.approx(0.010, rel=0.25)


@pytest.mark.parametrize("now_s", [0.020, 0.005], ids=["slower", "faster"])
def test_a_lasting_change_is_followed(now_s):
    """A machine that has become twice as slow, or as fast, is known after forty batches."""
    model = told(*([now_s] * 40))

    assert model.predict_s("full", VGA, 1) == pytest.approx(now_s, rel=0.1)


def test_a_change_of_ten_times_is_followed_within_a_hundred_batches():
    """Each distant value widens the spread, and with it the reach of the next."""
    assert told(*([0.1] * 100)).predict_s("full", VGA, 1) == pytest.approx(0.1, rel=0.1)


def test_the_spread_follows_how_far_batches_scatter():
    """Steady batches narrow it, to a floor; unmeasured shapes have a tenth of their time."""
    steady, scattered = told(*([0.010] * 300)), told(*([0.008, 0.012] * 150))

    assert steady.spread_s("full", VGA, 1) == pytest.approx(0.02 * 0.010)
    assert scattered.spread_s("full", VGA, 1) == pytest.approx(0.002, rel=0.2)
    assert scattered.spread_s("full", UHD, 1) == pytest.approx(0.1 * scattered.predict_s("full", UHD, 1))


def test_a_machine_that_slows_down_slows_every_shape():
    """Those of which no batch ran lately too: measured ones of any model, and interpolated ones."""
    model = sample_latency()
    shapes = [("full", VGA, 1), ("light", VGA, 4), ("full", HD, 2), ("full", CanvasShape(640, 640), 1)]
    before = [model.predict_s(*shape) for shape in shapes]
    for _ in range(100):
        model.observe("full", PORTRAIT, 1, 0.020)
    after = [model.predict_s(*shape) for shape in shapes]

    assert after == pytest.approx([2 * seconds for seconds in before], rel=0.3)


def test_a_shape_that_changes_alone_is_told_from_a_slower_machine():
    """Three times as long in batches of four while all others take what they took: it is its own.

    Of a model of which no batch ran nothing better is known than that half of the batches were slower.
    """
    model = sample_latency()
    for _ in range(300):
        for batch, took_s in ((4, 0.084), (1, 0.010), (2, 0.016)):
            model.observe("full", VGA, batch, took_s)

    assert [model.predict_s("full", VGA, batch) for batch in (1, 2, 4)] == pytest.approx([0.010, 0.016, 0.084], rel=0.1)
    assert model.predict_s("light", VGA, 4) == pytest.approx(0.010, rel=0.5)


def test_what_is_known_can_be_saved_and_taken_up():
    """A model made from another's entries predicts the same, and goes on learning from the same place."""
    model = told(0.011, 0.012, 0.013)
    again = LatencyModel(LatencyTable("m", Origin.MEASURED, model.entries()))
    shapes = [(VGA, 1), (VGA, 2), (UHD, 1)]

    assert again.entries() == model.entries()
    assert again.entries()[LatencyKey("full", VGA, 1)].num_samples == 11
    assert [again.predict_s("full", *shape) for shape in shapes] == pytest.approx(
        [model.predict_s("full", *shape) for shape in shapes]
    )


@given(
    known=st.dictionaries(
        st.tuples(st.sampled_from([SMALL, MIDDLE, LARGE]), st.sampled_from([1, 2, 4])),
        st.floats(0.001, 10),
        max_size=9,
    ),
    canvas=st.sampled_from([SMALL, MIDDLE, LARGE, VGA, CanvasShape(7, 7)]),
    batch=st.integers(1, 16),
)
@settings(derandomize=True, database=None, deadline=None)
def test_every_shape_has_a_positive_prediction_which_is_its_own_if_measured(known, canvas, batch):
    """Whatever was measured, in whatever combination."""
    model = LatencyModel()
    for (its, size), run_s in known.items():
        model.observe("full", its, size, run_s)

    predicted_s = model.predict_s("full", canvas, batch)
    assert 0 < predicted_s < 1e5
    if (canvas, batch) in known:
        assert predicted_s == pytest.approx(known[canvas, batch])


@given(values_s=st.lists(st.floats(0.0001, 100), min_size=1, max_size=50))
@settings(derandomize=True, database=None, deadline=None)
def test_predictions_stay_within_what_was_seen(values_s):
    """A mean of the past never leaves it."""
    predicted_s = told(*values_s).predict_s("full", VGA, 1)

    assert min(0.010, *values_s) * 0.999 <= predicted_s <= max(0.010, *values_s) * 1.001


def test_scatter_of_one_shape_says_nothing_of_the_others():
    """A hundred thousand batches of one, ten minutes of a busy pool: the others stay what they were measured."""
    lots, model = random.Random(0), sample_latency()
    for _ in range(100_000):
        model.observe("full", VGA, 1, lots.gauss(0.010, 0.00125))

    assert model.predict_s("full", VGA, 1) == pytest.approx(0.010, rel=0.15)
    assert model.predict_s("full", VGA, 4) == pytest.approx(0.028, rel=0.15)
    assert model.predict_s("full", HD, 1) == pytest.approx(0.030, rel=0.15)
