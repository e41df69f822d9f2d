"""Figures: they say what the data say, on the Axes they are given, with every word inside the figure."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from fer_tf import plots
from fer_tf.calibration import expected_calibration_error
from fer_tf.labels import COLOURS, FER2013, FERPLUS

RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.full(7, 0.4), 400)
TRUE = RNG.integers(0, 7, 400)
COUNTS = pd.DataFrame(
    {"train": [40, 4, 41, 72, 48, 32, 50], "train %": 0.0, "test": [5, 1, 5, 9, 6, 4, 6]}, index=list(FER2013)
)
HISTORY = pd.DataFrame(
    {
        "epoch": range(1, 6),
        "phase": ["head", "head", "fine", "fine", "fine"],
        "improved": [True, True, False, True, False],
        "seconds": 2.0,
    }
    | {
        f"{split}{name}": np.linspace(0.2, 0.6, 5)
        for split in ("", "valid_")
        for name in ("nll", "accuracy", "macro_f1")
    }
)
MODELS = pd.DataFrame(
    {"model": ["a", "b", "c"], "accuracy": [0.6, 0.7, 0.5], "low": [0.58, 0.69, 0.4], "high": [0.63, 0.71, 0.6]}
)
SQUARE = pd.DataFrame([[0.0, 3.2, -1.0], [-3.2, 0.0, 0.04], [1.0, -0.04, 0.0]], index=list("abc"), columns=list("abc"))
PRICED = MODELS.assign(cost=[0.3, 4.0, 1.0], parameters=[6e5, 3e6, 2e6])
RECALLS = pd.DataFrame(RNG.uniform(0, 1, (3, 8)), index=["lenet", "mobilenet_v2", "vgg"], columns=FERPLUS)
GAINS = pd.DataFrame({"change": ["x", "y", "x"], "gain": [1.0, -2.0, 2.0], "margin": [0.5, 0.5, 1.0]})
RUNGS = pd.DataFrame(
    [
        {"rung": rung, "backend": backend, "provider": provider, "frames_per_s": speed}
        for rung, speed in (("synchronous, batch 1", 40.0), ("batched", 60.0), ("a third", 99.5))
        for backend, provider in (("openvino-provider", "OpenVINOExecutionProvider"), ("cpu", "CPUExecutionProvider"))
    ]
)
BOUNDED = RUNGS.assign(bound_frames_per_s=1.2 * RUNGS["frames_per_s"])
TIMES = pd.DataFrame(P[:50], columns=FER2013).assign(time_s=np.arange(50) / 30)
LABELS = ["happy"] * 20 + ["sad"] * 30 + ["neutral"] * 10


def people(n: int, *, smoothed: bool = True) -> pd.DataFrame:
    """A table of faces, ten frames/s: track k is there from k / 2 s on for six seconds, surely happy, sad, neutral."""
    rows = [
        {"frame": i + 5 * track, "time_s": i / 10 + track / 2, "track": track, "label": label}
        | dict.fromkeys(FER2013, 0.0)
        | {label: 1.0}
        | {f"smoothed_{name}": 1 / 7 if smoothed else np.nan for name in FER2013}
        for track in range(n)
        for i, label in enumerate(LABELS)
    ]
    shares = [*FER2013, *(f"smoothed_{name}" for name in FER2013)]
    return pd.DataFrame(rows, columns=["frame", "time_s", "track", "label", *shares])


SHARES = {emotion: {"precision": 0.5, "recall": 0.25, "f1": 1 / 3, "support": 1234} for emotion in FERPLUS}
MATRIX = np.arange(49).reshape(7, 7)

ON_ONE = {  # figures on one Axes
    "class_balance": lambda ax=None: plots.class_balance(COUNTS, ax=ax),
    "distribution": lambda ax=None: plots.distribution({"votes": P[0], "model": P[1]}, FER2013, ax=ax),
    "probabilities": lambda ax=None: plots.probabilities(P[0], FER2013, ax=ax),
    "confusion": lambda ax=None: plots.confusion(MATRIX, FER2013, ax=ax),
    "per_emotion": lambda ax=None: plots.per_emotion(SHARES, ax=ax),
    "valence_arousal": lambda ax=None: plots.valence_arousal(P[:, :2] * 2 - 1, TRUE, FER2013, ax=ax),
    "reliability": lambda ax=None: plots.reliability(P, TRUE, ax=ax),
    "compare_models": lambda ax=None: plots.compare_models(MODELS, ax=ax),
    "learning_curves": lambda ax=None: plots.learning_curves({"lenet": HISTORY, "vgg": HISTORY[:3]}, ax=ax),
    "ablations": lambda ax=None: plots.ablations(GAINS, ax=ax),
    "recalls": lambda ax=None: plots.recalls(RECALLS, ax=ax),
    "leads": lambda ax=None: plots.leads(SQUARE, SQUARE.abs() > 2, ax=ax),
    "agreement": lambda ax=None: plots.agreement(SQUARE.abs() / 4, 1 - SQUARE.abs() / 4, ax=ax),
    "pareto": lambda ax=None: plots.pareto(PRICED, cost="one face, ms", ax=ax),
    "ladder": lambda ax=None: plots.ladder(RUNGS, ax=ax),
    "ladder with bounds": lambda ax=None: plots.ladder(BOUNDED, peers={"fer 1.0": 54.8}, ax=ax),
    "over_time": lambda ax=None: plots.over_time(TIMES, ax=ax),
    "position_similarity": lambda ax=None: plots.position_similarity(RNG.normal(size=(36, 8)), ax=ax),
    "embedding_map": lambda ax=None: plots.embedding_map(RNG.normal(size=(400, 2)), TRUE, FER2013, ax=ax),
    "cosines": lambda ax=None: plots.cosines(np.corrcoef(RNG.normal(size=(8, 5))), FERPLUS, ax=ax),
}
ROBUST = {
    "severities": [1, 5],
    "corruptions": {
        name: {"unit": "of the side", "amounts": [0.01, 0.2]} for name in ("blur", "low resolution", "JPEG")
    },
    "models": {
        model: {"accuracy": 0.7, "corrupted": {kind: [0.5, 0.2] for kind in ("blur", "low resolution", "JPEG")}}
        for model in ("lenet", "mobilenet_v2", "mobilenet_v2-int8", "vgg")
    },
}
IMAGES = RNG.integers(0, 255, (5, 16, 16, 1), dtype=np.uint8)
MAPS = np.zeros((5, 16, 16), np.float32)
MAPS[:, 4, 4] = 1
TITLES = ["surprise, said disgust"] * 5
MAP_NAMES = ("hires_cam", "another face's map", "random blobs", "random dots")
ON_MANY = {
    "contact_sheet": lambda: plots.contact_sheet(IMAGES, titles=["surprise → disgust"] * 5, columns=3),
    "patches": lambda: plots.patches(IMAGES[0], patch_size=4),
    "sequence": lambda: plots.patches(IMAGES[0], patch_size=4, columns=16),
    "saliency_grid": lambda: plots.saliency_grid(IMAGES, MAPS, ["happy"] * 5),
    "robustness": lambda: plots.robustness(ROBUST, dict.fromkeys(ROBUST["corruptions"], IMAGES[:3])),
    "saliency_table": lambda: plots.saliency_table(IMAGES, {"integrated_gradients": MAPS, "b": 0 * MAPS}, TITLES),
    "covering": lambda: plots.covering(dict.fromkeys(MAP_NAMES, P[0]), dict.fromkeys(MAP_NAMES, P[1])),
    "history": lambda: plots.history(HISTORY),
    "timeline": lambda: plots.timeline(people(3)),
    "timeline of many": lambda: plots.timeline(people(8)),
    "timeline of nobody": lambda: plots.timeline(people(0)),
}


@pytest.fixture(autouse=True)
def figures():
    plt.switch_backend("agg")
    with plt.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def words(artist) -> list[str]:
    return [text.get_text() for text in artist.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("name", ON_ONE)
def test_draws_on_the_axes_it_is_given(name):
    ax = plt.subplots()[1]
    assert ON_ONE[name](ax) is ax
    assert len(plt.get_fignums()) == 1
    assert ax.get_title(loc="left") and ax.get_xlabel()


@pytest.mark.parametrize("name", [*ON_ONE, *ON_MANY])
def test_every_word_lies_inside_the_figure(name):
    drawn = (ON_ONE | ON_MANY)[name]()
    figure = (drawn.flat[0] if isinstance(drawn, np.ndarray) else drawn).figure
    figure.canvas.draw()
    drawn_over, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(drawn_over.x0, drawn_over.y0) >= -0.01
    assert drawn_over.x1 <= width + 0.01 and drawn_over.y1 <= height + 0.01


def test_class_balance_shows_shares_of_the_split_and_counts():
    ax = plots.class_balance(COUNTS)
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == pytest.approx([*COUNTS["train"] / COUNTS["train"].sum(), *COUNTS["test"] / COUNTS["test"].sum()])
    assert {"72", "9"} <= set(words(ax))


def test_probabilities_stand_highest_first():
    ax = plots.probabilities(np.array([0.1, 0.7, 0.2]), ("angry", "disgust", "fear"))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["angry", "fear", "disgust"]  # from the bottom
    assert "70.0%" in words(ax)


def test_confusion_shows_row_shares_and_counts_and_an_empty_row_as_zero():
    ax = plots.confusion(np.array([[3, 1], [0, 0]]), ("happy", "sad"))
    assert [text.get_text() for text in ax.texts] == ["75%", "3", "25%", "1", "0%", "0", "0%", "0"]


def test_reliability_names_the_same_ece_as_the_evaluation():
    ece = expected_calibration_error(P, TRUE)
    assert f"ECE {ece:.1%}" in plots.reliability(P, TRUE).get_title(loc="left")


def test_ablations_name_the_best_change_on_top():
    ax = plots.ablations(GAINS)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["y", "x"]
    assert ax.containers[0].lines[0].get_xydata().tolist() == [[1, 1], [-2, 0], [2, 1]]


def test_learning_curves_run_over_the_seconds_so_far():
    (line,) = plots.learning_curves({"lenet": HISTORY}).lines
    assert (
        line.get_xdata().tolist() == [2, 4, 6, 8, 10]
        and line.get_ydata().tolist() == HISTORY["valid_accuracy"].tolist()
    )


def test_history_marks_the_best_epoch_and_shades_the_head_phase():
    axes = plots.history(HISTORY)
    legend = words(axes[0].figure.legends[0])
    assert legend == ["train", "valid", "head phase", "best, epoch 4"]
    shade = axes[1].patches[0].get_extents().transformed(axes[1].transData.inverted())
    assert (shade.x0, shade.x1) == pytest.approx((0.5, 2.5))


def test_history_marks_where_a_branch_joins():
    phases = ["branch_1", "branch_1", "branch_2", "fine", "fine"]
    axes = plots.history(HISTORY.assign(phase=phases))
    assert words(axes[0].figure.legends[0]) == ["train", "valid", "a branch joins", "best, epoch 4"]
    assert [line.get_xdata()[0] for line in axes[1].lines if line.get_linestyle() == ":"] == [2.5, 3.5]


def test_valence_and_arousal_name_the_mean_of_each_emotion_present():
    affect, labels = np.array([[0.5, 0.5], [0.7, 0.1], [-0.5, -0.2]]), np.array([1, 1, 0])
    ax = plots.valence_arousal(affect, labels, ("sad", "happy", "fear"))
    means = {dot.get_label(): dot.get_offsets()[0].tolist() for dot in ax.collections[1::2]}
    assert means == {"sad": pytest.approx([-0.5, -0.2]), "happy": pytest.approx([0.6, 0.3])}
    assert words(ax.get_legend()) == ["sad", "happy"]


def test_history_of_one_fine_epoch_has_no_head_phase():
    one = HISTORY.iloc[[3]]
    assert words(plots.history(one)[0].figure.legends[0]) == ["train", "valid", "best, epoch 4"]


def test_models_are_sorted_and_intervals_reach_from_low_to_high():
    ax = plots.compare_models(MODELS)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["c", "a", "b"]  # from the bottom
    reach = [segment[:, 0].tolist() for segment in ax.containers[0].lines[2][0].get_segments()]
    assert np.allclose(reach, [[0.4, 0.6], [0.58, 0.63], [0.69, 0.71]])


def test_leads_are_starred_where_sure_and_nothing_leads_itself():
    texts = [text.get_text() for text in plots.leads(SQUARE, SQUARE.abs() > 2).texts]
    assert texts == ["", "+3.2*", "-1.0", "-3.2*", "", "0.0", "+1.0", "0.0", ""]


def test_the_pareto_front_joins_those_that_none_beats():
    ax = plots.pareto(PRICED, cost="one face, ms")
    (front,) = [line for line in ax.lines if line.get_label() == "beaten by none"]
    assert front.get_xydata().tolist() == [[0.3, 0.6], [4.0, 0.7]]  # c costs more than a and knows less
    assert words(ax.get_legend()) == ["beaten by none", "b, 3 M", "a, 0.6 M", "c, 2 M"]
    assert len(plots.pareto(PRICED[:1], cost="one face, ms").collections) >= 1


def test_robustness_has_a_panel_for_each_corruption_and_a_face_over_each_severity():
    axes = plots.robustness(ROBUST, dict.fromkeys(ROBUST["corruptions"], IMAGES[:3]))
    assert titles(axes) == ["Blur", "Low resolution", "JPEG"]
    assert [tick.get_text() for tick in axes[0].get_xticklabels()] == ["none", "1\n0.01", "5\n0.2"]
    assert all(line.get_ydata().tolist() == [0.7, 0.5, 0.2] for line in axes[1].lines)
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes[0].lines}
    assert len(looks) == 4 and len(axes[0].artists) == 3


def test_ladder_keeps_the_order_of_the_rungs_and_names_the_provider():
    ax = plots.ladder(RUNGS)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["synchronous, batch 1", "batched", "a third"]
    assert "openvino-provider\n(OpenVINOExecutionProvider)" in words(ax.get_legend())
    assert [text for text in words(ax) if text == "99.5"] == ["99.5", "99.5"]


def test_ladder_marks_bounds_and_draws_peers_as_lines():
    ax = plots.ladder(BOUNDED, peers={"fer 1.0": 54.8})
    marks = [line for line in ax.lines if line.get_marker() == "|"]
    assert sorted(x for line in marks for x in line.get_xdata()) == sorted(BOUNDED["bound_frames_per_s"])
    assert max(BOUNDED["bound_frames_per_s"]) < ax.get_xlim()[1]
    assert words(ax.get_legend())[:2] == ["bound: no core ever waits", "fer 1.0: 54.8"]


def test_saliency_leaves_the_image_where_the_network_did_not_look():
    shown = plots.saliency_grid(IMAGES, MAPS, ["x"] * 5)[0, 0].images[0].get_array()
    plain, overlay = shown[:, :16], shown[:, -16:]
    changed = (plain != overlay).any(axis=2)
    assert changed[4, 4] and changed.sum() == 1


def test_a_table_of_maps_has_a_row_for_each_and_says_where_one_is_empty():
    axes = plots.saliency_table(
        IMAGES, {"first": MAPS, "second": MAPS * np.array([1, 0, 1, 1, 1])[:, None, None]}, TITLES
    )
    assert axes.shape == (3, 5) and words(axes[2, 1]) == ["no evidence"] and not words(axes[1, 1])
    shown = axes[1, 0].images[0].get_array()
    assert np.array_equal(shown[8:, 8:], np.broadcast_to(IMAGES[0], (16, 16, 3))[8:, 8:])
    assert not np.array_equal(shown[4, 4], np.broadcast_to(IMAGES[0], (16, 16, 3))[4, 4])


def test_covering_names_the_area_under_each_curve():
    axes = plots.covering({"a map": np.array([1, 0.5, 0])}, {"a map": np.array([0, 1, 1])})
    assert [words(ax.get_legend())[-1] for ax in axes] == ["a map: 0.50", "a map: 0.75"]


def test_saliency_says_where_a_map_is_empty_and_what_its_colours_mean():
    axes = plots.saliency_grid(IMAGES, MAPS * np.array([1, 0, 1, 1, 1])[:, None, None], ["x"] * 5)
    assert ["no evidence" in words(ax) for ax in axes.flat[:5]] == [False, True, False, False, False]
    assert "share of the\nmap's peak" in words(axes[0, 0].figure)


def test_over_time_names_every_line_at_its_end_and_no_two_names_overlap():
    crowded = pd.DataFrame([dict.fromkeys(FERPLUS, 0.0) | {"happy": 1.0}] * 3).assign(time_s=range(3))
    ax = plots.over_time(crowded)
    ax.figure.canvas.draw()
    boxes = {text.get_text(): text.get_window_extent() for text in ax.texts}
    assert set(boxes) == set(FERPLUS) and max(boxes, key=lambda name: boxes[name].y0) == "happy"
    from_below = sorted(boxes.values(), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(from_below))
    assert not plots.over_time(crowded[:0]).texts


def titles(axes) -> list[str]:
    return [ax.get_title(loc="left") for ax in axes]


def test_timeline_has_a_row_for_each_person_the_longest_seen_first():
    table = people(3)
    table = table[(table["track"] != 1) | ((table["time_s"] > 1.9) & (table["time_s"] < 5.9))]
    table = table[(table["track"] != 2) | (table["time_s"] < 1.75)]  # seen for 0.8 s
    axes = plots.timeline(table.sample(frac=1, random_state=0))
    assert titles(axes) == ["track 0, seen for 6.0 s", "track 1, seen for 3.9 s"]
    assert titles(plots.timeline(table, least_s=0.5))[2] == "track 2, seen for 0.8 s"
    assert titles(plots.timeline(table, most=1)) == ["track 0, seen for 6.0 s"]


def test_timeline_of_many_says_how_many_there_are():
    axes = plots.timeline(people(8))
    assert len(axes) == 6 and "the 6 of 8 people seen longest" in words(axes[0])


@pytest.mark.parametrize("n", [0, 1])
def test_timeline_of_nobody_says_so(n):
    assert "nobody was seen for 7 s" in words(plots.timeline(people(n), least_s=7)[0])


def bands(ax) -> dict[tuple, list[list[float]]]:
    """Colour -> spans from start to end, in seconds, of the band over the probabilities."""
    found = {}
    for bars in ax.collections:
        spans = [path.get_extents() for path in bars.get_paths()]
        if spans[0].y0 > 1:
            found[to_hex(bars.get_facecolor()[0])] = [[span.x0, span.x1] for span in spans]
    return found


def test_timeline_lays_the_labels_over_their_time_and_leaves_gaps_blank():
    table = people(1)
    (ax,) = plots.timeline(table[(table["time_s"] < 2.95) | (table["time_s"] > 3.95)])
    spans = {name: np.round(bands(ax).get(COLOURS[name].lower(), []), 6).tolist() for name in FER2013}
    assert spans.pop("happy") == [[0, 2]] and spans.pop("sad") == [[2, 3], [4, 5]] and spans.pop("neutral") == [[5, 6]]
    assert not any(spans.values())
    assert {"happy", "sad", "neutral"} <= {text.get_text() for text in ax.texts}
    assert ax.get_title(loc="left") == "track 0, seen for 5.0 s"


@pytest.mark.parametrize(("smoothed", "share"), [(True, 1 / 7), (False, 1.0)])
def test_timeline_shows_smoothed_probabilities_where_they_are(smoothed, share):
    """At 0.5 s the person is surely happy by the raw ones, and anything by the smoothed ones."""
    (ax,) = plots.timeline(people(1, smoothed=smoothed))
    areas = {area.get_label(): area.get_paths()[0] for area in ax.collections}
    heights = areas["happy"].vertices[np.isclose(areas["happy"].vertices[:, 0], 0.5), 1]
    assert np.ptp(heights) == pytest.approx(share)
    assert words(ax.figure.legends[0]) == list(FER2013)[::-1]


def test_titles_wider_than_their_picture_are_broken():
    (first, *_) = plots.contact_sheet(IMAGES, titles=["surprise, said disgust 97%"] * 5).flat
    first.figure.canvas.draw()
    assert "\n" in first.get_title() and first.title.get_window_extent().width < first.figure.bbox.width / 5


def test_the_diagonal_lies_over_the_bars():
    ax = plots.reliability(P, TRUE)
    (diagonal,) = [line for line in ax.lines if line.get_label() == "perfectly calibrated"]
    assert diagonal.zorder > max(bar.zorder for bar in ax.patches)


def test_contact_sheet_fills_rows_and_refuses_nothing():
    axes = plots.contact_sheet(IMAGES, columns=3)
    assert axes.shape == (2, 3) and sum(len(ax.images) for ax in axes.flat) == 5
    with pytest.raises(ValueError, match="at least one image"):
        plots.contact_sheet(IMAGES[:0])


def test_patches_stand_in_their_places_or_one_after_the_other():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    places = plots.patches(image, patch_size=2).images[0].get_array()[..., 0]
    assert places.shape == (6, 6) and (places[2] == 255).all() and places[:2, :2].tolist() == [[0, 1], [4, 5]]
    row = plots.patches(image, patch_size=2, columns=4).images[0].get_array()[..., 0]
    assert row.shape == (3, 12) and row[:2, 6:8].tolist() == [[8, 9], [12, 13]]  # the third: left, below
    with pytest.raises(ValueError, match="3 px do not divide a picture of 4 px"):
        plots.patches(image, patch_size=3)


def test_every_position_is_compared_with_all_in_its_own_place():
    positions = np.eye(4) + np.eye(4)[[1, 0, 2, 3]]  # the first two of four patches are alike
    shown = plots.position_similarity(positions).images[0].get_array().filled(np.nan)
    np.testing.assert_allclose(shown[:2, 3:5], [[1, 1], [0, 0]])  # the map of the second patch
    assert np.isnan(shown[2]).all()
    with pytest.raises(ValueError, match="without class token, got 5"):
        plots.position_similarity(np.ones((5, 3)))


def test_embeddings_differ_by_sign_and_colour_and_cosines_are_written():
    ax = plots.embedding_map(RNG.normal(size=(8, 2)), np.arange(8), FERPLUS)
    assert len({dots.get_paths()[0].vertices.tobytes() for dots in ax.collections}) == 8
    assert words(ax.get_legend())[3] == "happy (n = 1)"
    assert [text.get_text() for text in plots.cosines([[1, -0.25], [-0.25, 1]], ("happy", "sad")).texts][1] == "-0.25"
