"""Figures of one data set or one model: its labels, its training, its answers."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fer_tf.calibration import calibration_bins, expected_calibration_error
from fer_tf.labels import COLOURS
from fer_tf.plots.shared import INK, QUIET, SERIES, ensure_axes, grouped_bars, in_percent, legend_beside

SPLITS = {"train": "#17445E", "valid": "#4FA3C7", "test": "#F2A65A"}  # told apart by lightness alone


def class_balance(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the share of each emotion within each split, with its count.

    table  counts: emotions as rows, train, valid, test as columns. Columns that end in "%" are left out, so
           `Audit.balance()` fits as it is.
    """
    counts = table[[name for name in table if not name.endswith("%")]]
    ax = ensure_axes(ax, 7.5, 0.5 + 0.22 * counts.size)
    colours = [SPLITS[split] for split in counts]
    grouped_bars(ax, counts / counts.sum(), texts=counts.map("{:,}".format), colours=colours)
    ax.set(title="Class balance", xlabel="share of the split")
    return ax


def distribution(shares: Mapping[str, np.ndarray], emotions: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Draw distributions over the emotions side by side: ``{"votes": (emotions,), "model": (emotions,)}``."""
    frame = pd.DataFrame(shares, index=list(emotions))
    ax = ensure_axes(ax, 6.5, 0.7 + 0.24 * frame.size)
    grouped_bars(ax, frame, texts=frame.map("{:.1%}".format), colours=SERIES)
    ax.set(title="Label distribution", xlabel="share")
    return ax


def probabilities(p: np.ndarray, emotions: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Draw one face's probabilities (emotions,), highest first."""
    ax = ensure_axes(ax, 5, 0.6 + 0.3 * len(emotions))
    order = np.argsort(p)
    names = [emotions[i] for i in order]
    bars = ax.barh(names, p[order], color=[COLOURS[name] for name in names])
    ax.bar_label(bars, [f"{share:.1%}" for share in p[order]], padding=4)
    in_percent(ax.xaxis, whole=True)
    ax.set(title="What the network answers", xlabel="probability", xlim=(0, 1.12))
    ax.grid(axis="y", visible=False)
    return ax


def history(frame: pd.DataFrame) -> np.ndarray:
    """Draw a run's history.csv: NLL, accuracy and macro-F1 of train and valid against the epoch; returns three Axes.

    The head phase is shaded, the best epoch (the last that `improved`) marked, and so is where a branch joins others.
    """
    axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")[1]
    epochs = frame["epoch"]
    improved = frame.loc[frame["improved"].astype(bool), "epoch"]
    before = frame["phase"].shift()
    joined = epochs[before.str.startswith("branch", na=False).astype(bool) & (before != frame["phase"])]
    names = {"NLL": "nll", "Accuracy": "accuracy", "Macro-F1": "macro_f1"}
    for ax, (title, name) in zip(axes, names.items(), strict=True):
        for split, column in (("train", name), ("valid", f"valid_{name}")):
            ax.plot(epochs, frame[column], color=SPLITS[split], marker="o", markersize=3, label=split)
        if (head := epochs[frame["phase"] == "head"]).size:
            ax.axvspan(head.min() - 0.5, head.max() + 0.5, color="#f0ebe0", zorder=0, label="head phase")
        for i, epoch in enumerate(joined):
            label = None if i else "a branch joins"
            ax.axvline(epoch - 0.5, color=INK, linestyle=":", linewidth=1, zorder=1, label=label)
        if improved.size:
            best = improved.iloc[-1]
            text = f"best, epoch {best}"
            ax.axvline(best, color=QUIET, linestyle="--", linewidth=1, zorder=1, label=text)
        ax.set(title=title, xlabel="epoch", ylabel="NLL, nats" if name == "nll" else title)
        ax.set_xlim(epochs.min() - 0.5, epochs.max() + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name != "nll":
            in_percent(ax.yaxis)
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return axes


def confusion(matrix: np.ndarray, emotions: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Draw a confusion matrix of counts, rows true and columns predicted: percent of the row, the count below it."""
    matrix = np.asarray(matrix)
    ax = ensure_axes(ax, 1.4 + 0.8 * len(emotions), 0.9 + 0.66 * len(emotions))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        ink = "white" if share > 0.55 else INK
        ax.text(column, row, f"{share:.0%}", color=ink, ha="center", va="bottom", fontsize=10.5)
        ax.text(column, row + 0.06, f"{matrix[row, column]:,}", color=ink, ha="center", va="top", fontsize=9)
    ax.set_xticks(range(len(emotions)), emotions, rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(emotions)), emotions)
    ax.set(title="Confusion matrix", xlabel="predicted", ylabel="true")
    ax.grid(visible=False)
    in_percent(ax.figure.colorbar(image, ax=ax, label="share of the true emotion").ax.yaxis, whole=True)
    return ax


def per_emotion(shares: Mapping[str, Mapping], *, ax: Axes | None = None) -> Axes:
    """Draw precision and recall: `shares` is `Report.per_emotion`, emotion -> {precision, recall, support, ...}."""
    frame = pd.DataFrame(shares).T
    ax = ensure_axes(ax, 6.5, 0.6 + 0.5 * len(frame))
    pair = frame[["precision", "recall"]]
    pair.index = [f"{emotion} (n = {n:,.0f})" for emotion, n in frame["support"].items()]
    grouped_bars(ax, pair, texts=pair.map("{:.0%}".format), colours=SERIES)
    ax.set(title="Precision and recall", xlabel="share", xlim=(0, 1.12))
    in_percent(ax.xaxis, whole=True)
    return ax


def valence_arousal(affect: np.ndarray, labels: np.ndarray, emotions: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Draw faces in the plane of valence and arousal, float (n, 2) in -1..1, in the colours of their int (n,) labels.

    A large dot is the mean of an emotion.
    """
    ax = ensure_axes(ax, 5.2, 5)
    for k, emotion in enumerate(emotions):
        if (own := affect[labels == k]).size:
            ax.scatter(*own.T, s=12, color=COLOURS[emotion], alpha=0.45, linewidths=0)
            style = {"color": COLOURS[emotion], "edgecolors": "white", "linewidths": 1.5, "zorder": 3}
            ax.scatter(*own.mean(axis=0), s=110, label=emotion, **style)
    for line in (ax.axhline, ax.axvline):
        line(0, color=QUIET, linewidth=1, zorder=1)
    ax.set(title="Valence and arousal", xlabel="valence: unpleasant to pleasant", ylabel="arousal: calm to excited")
    ax.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
    ax.legend(loc="lower right", ncols=2, frameon=True, framealpha=0.8, edgecolor="white")
    return ax


def reliability(p: np.ndarray, labels: np.ndarray, *, bins: int = 15, ax: Axes | None = None) -> Axes:
    """Draw accuracy against confidence, (n, emotions) probabilities against int (n,) labels, and name the ECE.

    A bar below the diagonal is overconfidence. Bins are equally wide.
    """
    rows, accuracy, mean = calibration_bins(p, labels, bins=bins)
    ece = expected_calibration_error(p, labels, bins=bins)
    ax = ensure_axes(ax, 6.8, 4.4)
    left, few = np.arange(bins) / bins, rows < 0.01 * len(labels)
    style = {"width": 1 / bins, "align": "edge", "edgecolor": "white", "color": SERIES[2]}
    ax.bar(left[~few], accuracy[~few], **style)
    ax.bar(left[few], accuracy[few], **style, alpha=0.35, label="under 1% of the faces")
    ax.plot(mean[rows > 0], accuracy[rows > 0], "o", color=SERIES[0], markersize=4, label="bin's mean")
    ax.plot([0, 1], [0, 1], "--", color=INK, linewidth=1.5, zorder=3, label="perfectly calibrated")
    ax.set(title=f"Reliability: ECE {ece:.1%} over {len(labels):,} faces", xlabel="confidence", ylabel="accuracy")
    ax.set(xlim=(0, 1), ylim=(0, 1.02))
    in_percent(ax.xaxis, whole=True)
    in_percent(ax.yaxis, whole=True)
    legend_beside(ax)
    return ax
