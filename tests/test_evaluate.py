from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import metrics

from fer_tf import labels, paths
from fer_tf.calibration import calibration_bins, disagreement, expected_calibration_error, fit_temperature
from fer_tf.card import ModelCard
from fer_tf.training.evaluate import affect_report, judge, predict, report, wilson_interval
from fer_tf.training.results import add, check, read, row

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 7, 500)
LOGITS = (2 * np.eye(7)[LABELS] + RNG.normal(size=(500, 7))).astype(np.float32)


def test_figures_are_scikit_learns():
    judged, predicted = report(LOGITS, LABELS, labels.FER2013), LOGITS.argmax(axis=1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(LABELS, predicted)
    probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    assert judged.accuracy == pytest.approx(metrics.accuracy_score(LABELS, predicted))
    assert judged.macro_f1 == pytest.approx(f1.mean())
    assert judged.nll == pytest.approx(metrics.log_loss(LABELS, probabilities), rel=1e-5)
    np.testing.assert_array_equal(judged.confusion, metrics.confusion_matrix(LABELS, predicted))
    for k, emotion in enumerate(labels.FER2013):
        expected = {"precision": precision[k], "recall": recall[k], "f1": f1[k], "support": support[k]}
        assert judged.per_emotion[emotion] == pytest.approx(expected)
    low, high = judged.macro_f1_interval
    assert low < judged.macro_f1 < high and high - low < 0.12


def test_rows_are_true_and_columns_predicted():
    logits = np.eye(7, dtype=np.float32)[[1, 1]]
    confusion = report(logits, np.array([0, 1]), labels.FER2013).confusion
    assert confusion[0, 1] == 1 and confusion[1, 1] == 1 and confusion.sum() == 2


def test_wilson_interval_of_the_data_readme():
    low, high = wilson_interval(round(0.73 * 3589), 3589)
    assert (high - low) / 2 == pytest.approx(0.0145, abs=1e-4)
    assert wilson_interval(10, 10)[1] == pytest.approx(1) and wilson_interval(0, 10)[0] == pytest.approx(0)


@pytest.mark.parametrize(("confidence", "hits", "expected"), [(0.9, 9, 0.0), (0.9, 5, 0.4), (0.6, 10, 0.4)])
def test_calibration_error_is_the_gap(confidence, hits, expected):
    probabilities = np.tile([confidence, 1 - confidence], (10, 1))
    truth = np.array([0] * hits + [1] * (10 - hits))
    assert expected_calibration_error(probabilities, truth) == pytest.approx(expected)


def test_bins_hold_rows_accuracy_and_confidence():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.5, 0.5]])
    rows, accuracy, confidence = calibration_bins(p, np.array([0, 1, 0, 1]), bins=4)
    assert rows.tolist() == [0, 1, 1, 2] and accuracy.tolist() == [0, 0, 1, 0.5]
    assert confidence == pytest.approx([0, 0.5, 0.6, 0.85])


@pytest.mark.parametrize("times", [0.6, 1.0, 3.0])
def test_the_temperature_undoes_what_made_logits_too_sure(times):
    drawn = np.random.default_rng(1).gumbel(size=LOGITS.shape)
    truth = (LOGITS + drawn).argmax(axis=1)  # labels as probable as the logits say
    assert fit_temperature(times * LOGITS, truth) == pytest.approx(times, rel=0.15)
    assert fit_temperature(50 * LOGITS, LOGITS.argmax(axis=1)) == 0.5  # never wrong: as sure as is allowed


class Seer:
    """Takes the mean red of the left half of a crop for "angry", that of the right for "disgust", and a bias."""

    def __init__(self, bias=0.0):
        self.card = ModelCard(name="seer", architecture="toy", emotions=labels.FER2013, image_size=48)
        self.bias, self.seen = bias, []

    def logits(self, crops):
        self.seen.append(crops)
        logits = np.full((len(crops), 7), -1.0, np.float32)
        logits[:, 0], logits[:, 1] = (crops[:, :, half, 0].mean(axis=(1, 2)) for half in (slice(0, 24), slice(24, 48)))
        return logits + np.float32(self.bias)


def test_views_are_mirrored_and_moved_and_their_logits_averaged(tiny):
    faces = tiny.test.take(np.arange(3))
    plain, mirrored = predict(Seer(), faces), predict(Seer(), faces, views=2)
    np.testing.assert_allclose(mirrored[:, :2], plain[:, :2].mean(axis=1, keepdims=True).repeat(2, 1), rtol=1e-5)
    seer = Seer()
    predict(seer, faces, views=10)
    crops = faces.crops(48)
    assert len(seer.seen) == 10 and all(view.shape == crops.shape and view.dtype == np.uint8 for view in seer.seen)
    np.testing.assert_array_equal(seer.seen[0], crops)
    np.testing.assert_array_equal(seer.seen[1][:, 2:, 2:], crops[:, :-2, :-2])  # two pixels of 48
    np.testing.assert_array_equal(seer.seen[4][:, :-2, :-2], crops[:, 2:, 2:])
    np.testing.assert_array_equal(seer.seen[9], seer.seen[4][:, :, ::-1])
    with pytest.raises(ValueError, match="views must be one of 1, 2, 10, got 5"):
        predict(seer, faces, views=5)


def test_an_ensemble_is_the_mean_of_its_members_logits(tiny):
    done = []
    together = predict([Seer(0.0), Seer(3.0)], tiny.test, on_batch=done.append)
    np.testing.assert_allclose(together, predict(Seer(1.5), tiny.test), rtol=1e-5)
    assert done[-1] == len(tiny.test)


def test_a_row_of_results_takes_the_place_of_its_models_earlier_one(tmp_path):
    def row(model, accuracy):
        return {"model": model, "dataset": "d", "fingerprint": "f", "plain": {"test": {"accuracy": accuracy}}}

    path = tmp_path / "results.json"
    add(path, row("a", 0.5))
    add(path, row("b", 0.6))
    assert [r["model"] for r in add(path, row("a", 0.7))] == ["a", "b"]
    assert [r["plain"]["test"]["accuracy"] for r in read(path)] == [0.7, 0.6]
    with pytest.raises(ValueError, match="rows of other data called d"):
        add(path, row("c", 0.5) | {"fingerprint": "g"})
    path.write_text('{"architectures": 1}')
    with pytest.raises(ValueError, match="was not written by"):
        add(path, row("a", 0.5))


def test_a_model_that_is_measured_anew_keeps_its_seeds_and_another_one_does_not(tmp_path, caplog):
    def row(accuracy=0.5, **about):
        plain = {"test": {"accuracy": accuracy, "n": 100}}
        return {"model": "a", "dataset": "d", "fingerprint": "f", "bytes": 9, "recipe": {}, "plain": plain} | about

    for new, kept in (
        (row(0.52), True),  # another runtime's rounding
        (row(0.53), False),
        (row(fingerprint="g"), False),
        (row(bytes=8), False),
        (row(recipe={"epochs": 4}), False),
    ):
        path = tmp_path / "results.json"
        path.unlink(missing_ok=True)
        caplog.clear()
        add(path, row(seeds=[1, 2]))
        (found,) = add(path, new)
        assert found.get("seeds") == ([1, 2] if kept else None)
        assert ("no longer told" in caplog.text) is not kept


def test_runs_of_other_seeds_stand_beside_the_models_own(tiny, tmp_path):
    def model(seed, **changes):
        card = Oracle().card.with_(recipe={"epochs": 3, "seed": seed} | changes, data={"fingerprint": tiny.fingerprint})
        splits = "test", "test_clean", "valid", "valid_clean"
        figures = {split: {"accuracy": seed / 10, "macro_f1": 0.1} for split in splits}
        return SimpleNamespace(card=card, metrics=figures, folder=tmp_path / str(seed))

    seer = Seer(3.0)
    seer.backend = "python"
    seer.card = model(4).card.with_(files={"model.keras": {"parameters": 1, "bytes": 2}})
    told = judge(seer, tiny)
    found = row([seer], tiny, plain=told, ten=told, others=[model(5), model(1)])["seeds"]
    assert [one["seed"] for one in found] == [1, 4, 5]
    right = row([seer], tiny, plain=told, ten=told)["found"]
    assert sum(one["right"] for one in right.values()) == round(35 * told[0]["test"].accuracy)
    assert {one["n"] for one in right.values()} == {5} and tuple(right) == tiny.emotions
    assert [one["test"]["accuracy"] for one in found] == [0.1, told[0]["test"].accuracy, 0.5]
    for other, words in ((model(4), "seed 4 comes twice"), (model(5, epochs=9), "by another recipe than oracle")):
        with pytest.raises(ValueError, match=words):
            check(tmp_path / "none.json", [seer], tiny, [other])
        with pytest.raises(ValueError, match=words):
            row([seer], tiny, plain=told, ten=told, others=[other])
    with pytest.raises(ValueError, match="an ensemble has no seeds"):
        row([seer, seer], tiny, plain=told, ten=told, others=[model(5)])
    (tmp_path / "other.json").write_text("{}[")
    unnamed = SimpleNamespace(card=seer.card, path=paths.MODELS / "lenet" / "other.onnx")
    unseeded = SimpleNamespace(card=seer.card.with_(recipe={}))
    for engine, table, others, words in (
        (seer, "other.json", [], "was not written by"),
        (unnamed, "none.json", [], r"does not name other\.onnx"),
        (unseeded, "none.json", [model(5)], "tells no seed"),
    ):
        with pytest.raises(ValueError, match=words):
            check(tmp_path / table, [engine], tiny, others)


@pytest.mark.parametrize(
    ("logits", "truth", "message"),
    [
        (np.zeros((3, 6)), np.zeros(3, int), r"must be \(n, 7\)"),
        (np.zeros((0, 7)), np.zeros(0, int), "above 0"),
        (np.full((2, 7), np.nan), np.zeros(2, int), "2 of 2 rows"),
    ],
)
def test_unfit_logits_are_refused(logits, truth, message):
    with pytest.raises(ValueError, match=message):
        report(logits, truth, labels.FER2013)


class Oracle:
    """An engine that reads the row of the bright bar: right on every pattern."""

    def __init__(self, emotions=labels.FER2013):
        self.card = ModelCard(name="oracle", architecture="lenet", emotions=emotions, image_size=32)

    def logits(self, crops):
        return crops.mean(axis=(2, 3)).reshape(len(crops), 8, 4).mean(axis=2)[:, :7].astype(np.float32)


@pytest.mark.parametrize("clean", [0, 10, 35])
def test_any_engine_is_judged_on_each_split_and_its_clean_rows(tiny, clean):
    mask, done = np.arange(35) < clean, []
    data = replace(tiny, clean={"train": np.ones(70, bool), "valid": np.ones(35, bool), "test": mask})
    reports, predictions = judge(Oracle(), data, on_batch=lambda *rows: done.append(rows))
    expected = {"valid": 35, "valid_clean": 35, "test": 35} | ({"test_clean": clean} if clean else {})
    assert {name: judged.n for name, judged in reports.items()} == expected
    assert all(judged.accuracy == 1 for judged in reports.values())
    assert done == [(35, 70), (70, 70)]
    np.testing.assert_array_equal(predictions["test_clean"], mask)
    np.testing.assert_array_equal(predictions["valid_logits"].argmax(axis=1), predictions["valid_labels"])


def test_predicts_batch_by_batch(tiny):
    done = []
    assert predict(Oracle(), tiny.test, batch_size=16, on_batch=done.append).shape == (35, 7)
    assert done == [16, 32, 35]


def test_a_model_in_another_label_order_is_judged_alike(tiny):
    same, turned = predict(Oracle(), tiny.test), predict(Oracle(labels.FER2013[::-1]), tiny.test)
    np.testing.assert_array_equal(same, turned[:, ::-1])


def test_other_emotions_are_refused(tiny):
    with pytest.raises(ValueError, match="but the faces are labelled"):
        predict(Oracle(labels.FERPLUS), tiny.test)


def test_branches_of_one_mind_and_of_two():
    """Two branches, both sure of another emotion: their mean has entropy ln 2, each has none."""
    sure, unsure = np.array([60.0, 0, 0]), np.zeros(3)
    logits = np.array([[sure, sure[::-1]], [sure, sure], [unsure, unsure]])
    information, dissent = disagreement(logits)
    np.testing.assert_allclose(information, [np.log(2), 0, 0], atol=1e-6)
    np.testing.assert_array_equal(dissent, [0.5, 0, 0])
    with pytest.raises(ValueError, match="logits of every branch"):
        disagreement(sure[None])


def test_disagreement_by_hand():
    """Probabilities (0.5, 0.5) and (0.9, 0.1): mean (0.7, 0.3), entropies 0.6109, and 0.6931 and 0.3251."""
    information, dissent = disagreement(np.log([[[0.5, 0.5], [0.9, 0.1]]]))
    assert information[0] == pytest.approx(0.6109 - (0.6931 + 0.3251) / 2, abs=1e-4) and dissent[0] == 0


def test_affect_by_hand():
    """Valence is off by 0.1 and shifted, arousal falls where it should rise."""
    true = np.array([[0.0, -0.5], [0.5, 0.5], [1.0, 0.0]], np.float32)
    found = affect_report(true * [1, -1] + [-0.1, 0], true)
    assert found["valence"] == pytest.approx(
        {"rmse": 0.1, "ccc": 2 * (1 / 6) / (1 / 6 + 1 / 6 + 0.01), "sign_agreement": 1.0}, rel=1e-5
    )
    assert found["arousal"] == pytest.approx({"rmse": np.sqrt(2 / 3), "ccc": -1.0, "sign_agreement": 0.0}, rel=1e-5)
    assert found["mean_ccc"] == pytest.approx((found["valence"]["ccc"] - 1) / 2) and found["n"] == 3
    assert affect_report(np.zeros((2, 2)), np.zeros((2, 2)))["valence"] == {"rmse": 0, "ccc": 0, "sign_agreement": 0}
    with pytest.raises(ValueError, match=r"\(n, 2\) twice"):
        affect_report(true[:, :1], true)
