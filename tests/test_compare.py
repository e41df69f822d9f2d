"""Runs are compared from their folders alone: on the same data or not at all, and with the right p."""

import json
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fer_tf.card import ModelCard
from fer_tf.labels import FER2013
from fer_tf.training.compare import (
    agreement,
    clean_and_leaked,
    costs,
    difference,
    ensemble,
    holm,
    judged_data,
    leads,
    missed_by_all,
    paired_tests,
    read_ablations,
    read_run,
    read_runs,
    recalls,
    summary,
)
from fer_tf.training.evaluate import report

LABELS = np.arange(70) % 7


def logits_with(wrong) -> np.ndarray:
    """Logits that name every label rightly but those of these rows."""
    named = LABELS.copy()
    named[list(wrong)] = (named[list(wrong)] + 1) % 7
    return 4 * np.eye(7, dtype=np.float32)[named]


def write_run(folder, *, wrong=(), clean=70, fingerprint="aa", emotions=FER2013):
    """A finished run's papers, as `fit` leaves them; the first `clean` rows repeat nothing."""
    folder.mkdir(parents=True)
    logits = logits_with(wrong)
    judged = report(logits, LABELS, emotions).to_dict()
    (folder / "metrics.json").write_text(json.dumps({"test": judged, "test_clean": judged}))
    np.savez(folder / "predictions.npz", test_logits=logits, test_labels=LABELS, test_clean=np.arange(70) < clean)
    pd.DataFrame({"epoch": [1], "improved": [True]}).to_csv(folder / "history.csv", index=False)
    data = {"name": "drawn", "fingerprint": fingerprint}
    card = ModelCard(name=folder.name, architecture="lenet", emotions=emotions, image_size=48, data=data)
    card.save(folder / "card.json")
    return folder


def test_reads_the_finished_runs_of_a_folder_in_name_order(tmp_path):
    for name in ("b", "a"):
        write_run(tmp_path / name, wrong=[0])
    (tmp_path / "report").mkdir()
    runs = read_runs(tmp_path)
    assert [run.name for run in runs] == ["a", "b"]
    assert runs[0].metrics["test"]["accuracy"] == pytest.approx(69 / 70)
    assert runs[0].hits("test").sum() == 69 and runs[0].parameters is None


def test_a_gain_is_counted_on_the_rows_that_one_run_alone_got_right(tmp_path):
    run = {"seed": 0, "valid": 60.0, "n": 400, "only_right_with": 30, "only_right_without": 20}
    same = run | {"only_right_with": 0, "only_right_without": 0}
    rows = [
        {"change": "nothing", "choices": [], "runs": [same]},
        {"change": "mixup", "choices": [], "runs": [run, run]},
    ]
    (tmp_path / "a.json").write_text(json.dumps({"rows": rows}))
    table = read_ablations(tmp_path / "a.json")
    assert table["change"].tolist() == ["nothing", "mixup", "mixup"] and table["gain"].tolist() == [0, 2.5, 2.5]
    differences = np.repeat([1, -1, 0], [30, 20, 350])
    assert table["margin"].tolist() == pytest.approx([0, *[196 * differences.std() / 20] * 2])


def test_an_ensemble_is_the_mean_of_its_runs_logits(tmp_path):
    runs = [
        read_run(write_run(tmp_path / name, wrong=wrong)) for name, wrong in [("a", [0, 1]), ("b", [1, 2]), ("c", [3])]
    ]
    together = ensemble(runs)
    assert together.metrics["test"]["accuracy"] == pytest.approx(69 / 70)  # on row 1 two of three are wrong
    assert together.metrics["test_clean"]["n"] == 70 and together.parameters is None
    (test,) = paired_tests([runs[0], together])
    assert (test.second, test.only_first, test.only_second) == ("ensemble", 0, 1)
    assert runs[0].metrics["test"]["accuracy"] == pytest.approx(68 / 70)  # unchanged
    other = replace(runs[1], predictions=runs[1].predictions | {"test_labels": LABELS[::-1]})
    with pytest.raises(ValueError, match="not judged on the same faces"):
        ensemble([runs[0], other])


@pytest.mark.parametrize(
    ("other", "message"),
    [({"fingerprint": "bb"}, "a: drawn aa; b: drawn bb"), ({"emotions": FER2013[::-1]}, "do not share their emotions")],
)
def test_runs_on_other_data_are_not_compared(tmp_path, other, message):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", **other)
    with pytest.raises(ValueError, match=message):
        read_runs(tmp_path)


def test_no_run_names_the_notebooks_that_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="02_lenet or 03_mobilenet_v2"):
        read_runs(tmp_path)


def test_a_missing_and_a_damaged_file_are_named(tmp_path):
    folder = write_run(tmp_path / "a")
    content = (folder / "predictions.npz").read_bytes()
    (folder / "predictions.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="damaged"):
        read_run(folder)
    (folder / "predictions.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"no predictions\.npz"):
        read_run(folder)


def test_counts_the_numbers_of_a_saved_network_but_not_its_random_states(tmp_path):
    h5py = pytest.importorskip("h5py")
    folder = write_run(tmp_path / "a")
    with h5py.File(tmp_path / "weights.h5", "w") as weights:
        weights["layers/dense/vars/0"] = np.zeros((3, 4), np.float32)
        weights["layers/dense/vars/1"] = np.zeros(4, np.float32)
        weights["layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.write(tmp_path / "weights.h5", "model.weights.h5")
    assert read_run(folder).parameters == 16


@pytest.mark.parametrize(
    ("first", "second", "p", "says"),
    [
        (range(0), range(8), 2 * 0.5**8, "a leads by 11.4 points, and that is more than chance"),
        (range(8), range(0), 2 * 0.5**8, "b leads by 11.4 points, and that is more than chance"),
        ([0], [1, 2], 1.0, "a leads by 1.4 points, but chance alone"),
        ([0], [1], 1.0, "no difference in accuracy"),
        ([5], [5], 1.0, "no difference in accuracy"),
    ],
)
def test_mcnemar_counts_the_rows_that_one_alone_got_right(tmp_path, first, second, p, says):
    for name, wrong in (("a", first), ("b", second)):
        write_run(tmp_path / name, wrong=wrong)
    (test,) = paired_tests(read_runs(tmp_path))
    shared = set(first) & set(second)
    assert (test.only_first, test.only_second) == (len(set(second) - shared), len(set(first) - shared))
    assert test.both + test.only_first + test.only_second + test.neither == test.n == 70
    assert test.p == pytest.approx(p) and test.p_holm == pytest.approx(p)
    assert says in test.sentence


@pytest.mark.parametrize(
    ("clean", "split", "n", "only_second"), [(70, "test", 70, 8), (70, "test_clean", 70, 8), (5, "test_clean", 5, 5)]
)
def test_clean_rows_are_tested_by_their_mask(tmp_path, clean, split, n, only_second):
    for name, wrong in (("a", range(8)), ("b", range(0))):
        write_run(tmp_path / name, wrong=wrong, clean=clean)
    (test,) = paired_tests(read_runs(tmp_path), split=split)
    assert (test.n, test.only_second) == (n, only_second)


@pytest.mark.parametrize(
    ("split", "message"), [("train", "no predictions on 'train'; known are test, test_clean"), ("test_clean", "no row")]
)
def test_a_split_that_cannot_be_tested_is_named(tmp_path, split, message):
    for name in "ab":
        write_run(tmp_path / name, clean=0)
    with pytest.raises(ValueError, match=message):
        paired_tests(read_runs(tmp_path), split=split)


def test_several_tests_are_held_against_each_other(tmp_path):
    for name, wrong in (("a", range(0)), ("b", range(8)), ("c", range(9))):
        write_run(tmp_path / name, wrong=wrong)
    tests = paired_tests(read_runs(tmp_path))
    assert [(test.first, test.second) for test in tests] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [test.p_holm for test in tests] == pytest.approx([2 * 2 * 0.5**8, 3 * 2 * 0.5**9, 1.0])


def test_one_run_has_nothing_to_be_paired_with(tmp_path):
    write_run(tmp_path / "a")
    assert paired_tests(read_runs(tmp_path)) == []


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [([], []), ([0.03], [0.03]), ([0.04, 0.01, 0.03], [0.06, 0.03, 0.06]), ([0.9, 0.8], [1.0, 1.0])],
)
def test_holm(p, adjusted):
    assert holm(p) == pytest.approx(adjusted)


def two_runs(tmp_path, first=(), second=(), **papers):
    for name, wrong in (("a", first), ("b", second)):
        write_run(tmp_path / name, wrong=wrong, **papers)
    return read_runs(tmp_path)


def test_who_leads_whom_is_the_tests_turned_into_a_square(tmp_path):
    for name, wrong in (("a", range(0)), ("b", range(8)), ("c", range(14))):
        write_run(tmp_path / name, wrong=wrong)
    tests = paired_tests(read_runs(tmp_path))
    points, p = leads(tests)
    assert points.loc["a", "b"] == pytest.approx(100 * 8 / 70) and points.loc["c", "a"] == pytest.approx(-20)
    assert (points + points.T).abs().to_numpy().max() == 0 and (np.diag(p) == 1).all()
    assert p.loc["b", "a"] == p.loc["a", "b"] == tests[0].p_holm
    assert [table.empty for table in leads([])] == [True, True]


def test_a_difference_is_that_of_the_figures_and_its_interval_that_of_resampled_rows(tmp_path):
    f1_score = pytest.importorskip("sklearn.metrics").f1_score
    first, second = two_runs(tmp_path, [0, 1], range(12))
    found = difference(first, second)
    assert found.n == 70 and found.accuracy == pytest.approx(10 / 70)
    assert found.macro_f1 == pytest.approx(
        first.metrics["test"]["macro_f1"] - second.metrics["test"]["macro_f1"], abs=1e-9
    )
    rng, by_rows = np.random.default_rng(1), []
    for _ in range(300):
        rows = rng.integers(0, 70, 70)
        scores = [
            (np.mean(run.hits("test")[rows]), f1_score(LABELS[rows], run.answers("test")[rows], average="macro"))
            for run in (first, second)
        ]
        by_rows.append(np.subtract(*scores))
    low, high = np.quantile(by_rows, [0.025, 0.975], axis=0)
    assert found.accuracy_interval == pytest.approx((low[0], high[0]), abs=0.03)
    assert found.macro_f1_interval == pytest.approx((low[1], high[1]), abs=0.03)
    assert difference(first, first).accuracy_interval == (0, 0)


def test_recall_stands_by_run_and_emotion(tmp_path):
    table = recalls(two_runs(tmp_path, [0]))
    assert list(table.columns) == list(FER2013) and table.loc["a", FER2013[0]] == pytest.approx(0.9)
    assert table.loc["b"].tolist() == [1] * 7


def test_agreement_is_scikit_learns_kappa(tmp_path):
    cohen_kappa_score = pytest.importorskip("sklearn.metrics").cohen_kappa_score
    runs = two_runs(tmp_path, [0, 1, 2], [2, 3])
    same, kappa = agreement(runs)
    assert same.loc["a", "b"] == pytest.approx(67 / 70) and same.loc["a", "a"] == 1
    assert kappa.loc["a", "b"] == pytest.approx(cohen_kappa_score(*(run.answers("test") for run in runs)))
    constant = replace(runs[0], predictions={"test_logits": np.eye(7)[[3] * 70], "test_labels": LABELS})
    assert agreement([constant, constant])[1].to_numpy().tolist() == [[1, 1], [1, 1]]  # chance alone does as much


def test_rows_that_all_miss_are_named_with_what_most_say(tmp_path):
    for name, wrong in (("a", [0, 8]), ("b", [0, 8, 9]), ("c", [0, 8])):
        write_run(tmp_path / name, wrong=wrong)
    runs = read_runs(tmp_path)
    runs[2].predictions["test_logits"][0] = 9 * np.eye(7)[5]  # surer, but alone
    table = missed_by_all(runs)
    assert table["row"].tolist() == [8, 0] and table["said"].tolist() == [2, 1] and table["votes"].tolist() == [3, 2]
    assert table["label"].tolist() == [1, 0] and (table["p"].diff()[1:] < 0).all()
    assert sorted(missed_by_all(runs[:1])["row"]) == [0, 8]


def test_clean_rows_stand_against_leaked_ones(tmp_path):
    table = clean_and_leaked(two_runs(tmp_path, [0, 1, 60], clean=50))
    assert table.loc["a", "clean"] == pytest.approx(48 / 50) and table.loc["a", "leaked"] == pytest.approx(19 / 20)
    assert table.loc["a", "gap"] == pytest.approx(-0.01) and table.loc["b", "gap"] == 0
    assert (table["leaked low"] < table["leaked"]).all() and (table["leaked"] <= table["leaked high"] + 1e-9).all()


@pytest.mark.parametrize("clean", [0, 70])
def test_without_leaked_or_clean_rows_nothing_is_held_against_anything(tmp_path, clean):
    assert clean_and_leaked(two_runs(tmp_path, clean=clean)) is None


def test_costs_are_in_the_best_unit_that_all_share(tmp_path):
    from fer_tf import zoo

    runs = two_runs(tmp_path)
    known = zoo.measured()["architectures"]["lenet"]
    as_measured = [replace(run, parameters=known["parameters"]) for run in runs]
    what, cost = costs(as_measured)
    assert what.startswith("one face, ms") and cost == [pytest.approx(cost[0])] * 2 and 0 < cost[0] < 100
    exported = replace(runs[1], card=runs[1].card.with_(files={"model.onnx": {"multiply_adds": 5_000_000}}))
    assert costs([as_measured[0], exported]) == (
        "multiply-adds of one face, millions",
        [known["multiply_adds"] / 1e6, 5.0],
    )
    what, cost = costs([replace(runs[0], parameters=2_000_000), runs[1]])
    assert what == "parameters, millions" and cost[0] == 2 and np.isnan(cost[1])


def test_the_faces_of_runs_are_found_again_or_the_difference_is_said(tmp_path):
    from fer_tf.data.images import write_image
    from fer_tf.data.readers import load

    rng = np.random.default_rng(0)
    for emotion in ("happy", "sad"):
        for split, n in (("train", 9), ("valid", 4), ("test", 4)):
            (tmp_path / "faces" / split / emotion).mkdir(parents=True)
            for i in range(n):
                picture = rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)
                write_image(tmp_path / "faces" / split / emotion / f"{i}.png", picture)
    data = load(tmp_path / "faces", limit=4)
    (run, _) = two_runs(tmp_path / "runs")
    about = {"name": data.name, "fingerprint": data.fingerprint}
    run = replace(run, card=run.card.with_(data=about, recipe={"dataset": str(tmp_path / "faces")}))
    found = judged_data([run], limit=4)
    assert found.fingerprint == data.fingerprint and np.array_equal(found.test.ids, data.test.ids)
    with pytest.raises(ValueError, match=r"not what the runs saw .*give the limit"):
        judged_data([run], limit=5)
    gone = replace(run, card=run.card.with_(recipe={"dataset": str(tmp_path / "nowhere")}))
    with pytest.raises(FileNotFoundError, match="no data set"):
        judged_data([gone])


def test_real_faces_come_with_votes(fer2013_csv, tmp_path):
    (run, _) = two_runs(tmp_path)
    about = {"name": "fer2013", "fingerprint": "3fda80744a31ad4c"}
    data = judged_data([replace(run, card=run.card.with_(data=about, recipe={"dataset": "fer2013"}))], limit=1500)
    beside = (fer2013_csv.parent / "fer2013new.csv").is_file()
    assert len(data.test) == 3589 and (data.test.distributions is not None) == beside


def test_summary_is_in_percent_with_n():
    row = summary(report(logits_with([0]), LABELS, FER2013).to_dict())
    assert row["accuracy %"] == "98.6" and row["n"] == "70"
    assert row["95% interval"] == "92.3 – 99.7"


def test_comparing_needs_no_tensorflow():
    code = "import sys, fer_tf.training.compare; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
