"""Every figure of the notebooks and reports: data and an optional Axes in, Axes out, never shown.

Shares come in as 0..1 and are drawn in percent. Call `use_style()` once before; each figure is readable without it.
"""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from fer_tf.calibration import calibration_bins, expected_calibration_error
from fer_tf.faces import LUMA
from fer_tf.labels import COLOURS

SERIES = ("#17445E", "#F2A65A", "#4FA3C7", "#8C6BB1", "#6B6B6B")
STYLE = {
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08,  # inches
    "figure.constrained_layout.w_pad": 0.08,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=SERIES),
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
}
SPLITS = {"train": "#17445E", "valid": "#4FA3C7", "test": "#F2A65A"}  # told apart by lightness alone
SHEET = 10.5  # points of a title over a picture: it still reads at half the size
AWAY_S = 0.5  # seconds without a row after which a person is drawn as away
BAND = 7.5  # points of a label on a band
QUIET, INK = "#8a8a8a", "#222222"
DASHES = {"angry": "--", "fear": "--", "disgust": "-.", "contempt": ":"}  # no two similar colours share one


def use_style() -> None:
    """Set matplotlib's defaults to the house style, for the rest of the process or of an enclosing `rc_context`."""
    plt.rcParams.update(STYLE)


def contact_sheet(images: np.ndarray, *, titles: Sequence[str] | None = None, columns: int = 8) -> np.ndarray:
    """Draw uint8 (n, h, w, 1 or 3) images in rows of `columns`, a title above each; returns Axes (rows, columns)."""
    if not len(images):
        raise ValueError("a contact sheet needs at least one image, got none")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height, width = images.shape[1:3]
    cell = 1.45 * max(1.0, width / height)  # inches
    titles = [_wrapped(title, cell - 0.05) for title in titles] if titles is not None else None
    lines = max(title.count("\n") + 1 for title in titles) if titles else 0
    size = (cell * columns, (cell * height / width + 0.08 + 0.19 * lines) * rows)
    axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")[1]
    for ax in axes.flat:
        ax.set_axis_off()
    for i, (ax, image) in enumerate(zip(axes.flat, images, strict=False)):
        ax.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
        if titles is not None:
            ax.set_title(titles[i], fontsize=SHEET, fontweight="normal", loc="center", pad=3)
    return axes


def saliency_grid(images: np.ndarray, maps: np.ndarray, titles: Sequence[str], *, columns: int = 4) -> np.ndarray:
    """Draw each image beside itself under its saliency map; returns Axes (rows, columns).

    images  uint8 (n, s, s, 1 or 3)
    maps    float (n, s, s), 0..1: bright where the network looked, the plain image where it did not; of a map that is
            all zero the figure says so

    The scale at the side is what the map makes of a mid-grey picture.
    """
    images = np.broadcast_to(images, (*images.shape[:3], 3))
    overlays = _under_map(images, np.clip(maps, 0, 1))
    empty = ~(np.asarray(maps) > 0).any(axis=(1, 2))
    overlays[empty] = 238  # paper for the words
    gap = np.full((*images.shape[:2], max(1, images.shape[2] // 16), 3), 255)
    pairs = np.concatenate([images, gap, overlays], axis=2).astype(np.uint8)
    axes = contact_sheet(pairs, titles=titles, columns=columns)
    middle = pairs.shape[2] - images.shape[2] / 2 - 0.5, images.shape[1] / 2 - 0.5  # of the right picture
    for i in np.flatnonzero(empty):
        axes.flat[i].text(*middle, "no evidence", ha="center", va="center", fontsize=SHEET, color=INK)
    figure, steps = axes[0, 0].figure, np.linspace(0, 1, 256)
    figure.set_figwidth(figure.get_figwidth() + 1)  # inches, for the scale
    scale = ScalarMappable(cmap=ListedColormap(_under_map(np.full((256, 3), 128), steps) / 255))
    bar = figure.colorbar(scale, ax=axes, ticks=[0, 0.5, 1], format="{x:.0%}", aspect=9 * len(axes), fraction=0.05)
    bar.set_label("share of the\nmap's peak", fontsize=SHEET)
    return axes


def saliency_table(images: np.ndarray, maps: Mapping[str, np.ndarray], titles: Sequence[str]) -> np.ndarray:
    """Draw pictures side by side and below them the same under several maps, a row each; returns Axes (1 + rows, n).

    images  uint8 (n, s, s, 1 or 3)
    maps    what the row is called -> float (n, s, s), 0..1, drawn as `saliency_grid` does
    titles  above each picture
    """
    images = np.broadcast_to(images, (*images.shape[:3], 3))
    cell, lines = 1.3, max(title.count("\n") + 1 for title in (_wrapped(title, 1.25) for title in titles))
    size = (1.35 + cell * len(images), 0.19 * lines + (cell + 0.05) * (1 + len(maps)))
    axes = plt.subplots(1 + len(maps), len(images), figsize=size, squeeze=False, layout="constrained")[1]
    axes[0, 0].figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
    for row, (name, own) in zip(axes, {"picture": None, **maps}.items(), strict=True):
        for i, ax in enumerate(row):
            ax.set_axis_off()
            empty = own is not None and not (own[i] > 0).any()
            under = images[i] if own is None else _under_map(images[i], np.clip(own[i], 0, 1)).astype(np.uint8)
            ax.imshow(np.full_like(images[i], 238) if empty else under)
            if empty:
                middle = images.shape[2] / 2 - 0.5, images.shape[1] / 2 - 0.5
                ax.text(*middle, "no evidence", ha="center", va="center", fontsize=SHEET, color=INK)
        label = _wrapped(name.replace("_", " "), 1.25)
        row[0].text(-0.06, 0.5, label, ha="right", va="center", fontsize=SHEET, transform=row[0].transAxes)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(_wrapped(title, 1.25), fontsize=SHEET, fontweight="normal", loc="center", pad=3)
    return axes


def covering(deleted: Mapping[str, np.ndarray], inserted: Mapping[str, np.ndarray]) -> np.ndarray:
    """Draw mean probabilities while faces are taken away and while they come back, by map; returns two Axes.

    deleted, inserted  what the map is called -> float (steps + 1,), as `explain_scores.deletion` and `insertion` give
                       them for a face. The legend names the area under each
    """
    axes = plt.subplots(1, 2, figsize=(9.5, 4.6), layout="constrained", sharey=True)[1]
    titles = {"Deletion: a good map falls early": deleted, "Insertion: a good map rises early": inserted}
    for ax, (title, curves) in zip(axes, titles.items(), strict=True):
        for number, (name, curve) in enumerate(curves.items()):
            x = np.linspace(0, 1, len(curve))
            look = {"color": SERIES[number % len(SERIES)], "linestyle": ("-", "--", "-.", ":", "-")[number % 5]}
            ax.plot(x, curve, linewidth=2, label=f"{name}: {np.trapezoid(curve, x):.2f}", **look)
        ax.set(title=title, xlabel="share of the pixels, brightest first", ylim=(0, 1))
        _percent(ax.xaxis, whole=True)
        _percent(ax.yaxis, whole=True)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), title="map: area under the curve")
    axes[0].set_ylabel("probability of the answer")
    return axes


def patches(image: np.ndarray, *, patch_size: int, columns: int | None = None, ax: Axes | None = None) -> Axes:
    """Draw a picture cut into patches, as a vision transformer takes it: in their places, or in rows of `columns`.

    image  uint8 (s, s, 1 or 3); patch_size, in pixels, divides s
    """
    side = len(image) // patch_size
    if side * patch_size != len(image):
        raise ValueError(f"patches of {patch_size} px do not divide a picture of {len(image)} px")
    columns = columns or side
    rows = -(-side * side // columns)
    cut = np.broadcast_to(image, (*image.shape[:2], 3)).reshape(side, patch_size, side, patch_size, 3).swapaxes(1, 2)
    sheet = np.full((rows * columns, patch_size + 1, patch_size + 1, 3), 255, np.uint8)  # a white line around each
    sheet[: side * side, :-1, :-1] = cut.reshape(-1, patch_size, patch_size, 3)  # row by row: the sequence
    height, width = rows * (patch_size + 1), columns * (patch_size + 1)
    ax = _axes(ax, 2.6 if columns == side else 9, 2.9 if columns == side else 0.5 + 9 * height / width)
    ax.imshow(sheet.reshape(rows, columns, *sheet.shape[1:]).swapaxes(1, 2).reshape(height, width, 3))
    ax.set(title=f"{side * side} patches of {patch_size} px", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def position_similarity(positions: np.ndarray, *, ax: Axes | None = None) -> Axes:
    """Draw how alike the position embeddings of a ViT's patches are: a small map per patch, in that patch's place.

    positions  float (t, width) of a square grid of t patches, without class token

    Each map shows the cosine of its patch's embedding with those of all patches, its own (1) included. Source:
    Dosovitskiy et al. 2021, figure 7.
    """
    side = round(len(positions) ** 0.5)
    if side * side != len(positions):
        raise ValueError(f"expected a square number of patches without class token, got {len(positions)}")
    unit = positions / np.linalg.norm(positions, axis=1, keepdims=True)
    maps = np.full((side, side, side + 1, side + 1), np.nan)  # a white line after each map
    maps[..., :-1, :-1] = (unit @ unit.T).reshape(side, side, side, side)
    ax = _axes(ax, 5.6, 4.8)
    image = ax.imshow(maps.swapaxes(1, 2).reshape(side * (side + 1), -1), cmap="viridis", vmin=-1, vmax=1)
    middle = np.arange(side) * (side + 1) + (side - 1) / 2
    ax.set_xticks(middle, range(1, side + 1))
    ax.set_yticks(middle, range(1, side + 1))
    ax.set(title="Position embeddings compared", xlabel="column of the patch", ylabel="row of the patch")
    ax.grid(visible=False)
    ax.figure.colorbar(image, ax=ax, label="cosine", ticks=[-1, -0.5, 0, 0.5, 1])
    return ax


def embedding_map(points: np.ndarray, labels: np.ndarray, emotions: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Draw embeddings laid out in the plane, float (n, 2), each in its emotion's colour and sign, int (n,).

    The axes carry no numbers: in what t-SNE and its like make of an embedding, only neighbourhood means something.
    """
    ax = _axes(ax, 7.4, 5.4)
    for k, emotion in enumerate(emotions):
        x, y = points[labels == k].T
        look = {"marker": "os^DvPX*"[k % 8], "edgecolor": "white", "linewidth": 0.4}
        ax.scatter(x, y, s=34, color=COLOURS[emotion], label=f"{emotion} (n = {len(x):,})", **look)
    ax.set(title="Embeddings in the plane", xlabel="no unit", ylabel="no unit", xticks=[], yticks=[])
    _legend(ax)
    return ax


def cosines(matrix: np.ndarray, emotions: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Draw mean cosines between emotions, symmetric (emotions, emotions) in -1..1, written into each cell."""
    matrix = np.asarray(matrix)
    ax = _axes(ax, 1.4 + 0.8 * len(emotions), 0.9 + 0.66 * len(emotions))
    image = ax.imshow(matrix, cmap="PuOr", vmin=-1, vmax=1, aspect="auto")
    for (row, column), cosine in np.ndenumerate(matrix):
        ink = "white" if abs(cosine) > 0.7 else INK
        ax.text(column, row, f"{cosine:.2f}", color=ink, ha="center", va="center", fontsize=10.5)
    ax.set_xticks(range(len(emotions)), emotions, rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(emotions)), emotions)
    ax.set(title="Mean cosine between emotions", xlabel="faces labelled", ylabel="with faces labelled")
    ax.grid(visible=False)
    ax.figure.colorbar(image, ax=ax, label="mean cosine of two embeddings", ticks=[-1, -0.5, 0, 0.5, 1])
    return ax


def class_balance(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the share of each emotion within each split, with its count.

    table  counts: emotions as rows, train, valid, test as columns. Columns that end in "%" are left out, so
           `Audit.balance()` fits as it is.
    """
    counts = table[[name for name in table if not name.endswith("%")]]
    ax = _axes(ax, 7.5, 0.5 + 0.22 * counts.size)
    colours = [SPLITS[split] for split in counts]
    _grouped_bars(ax, counts / counts.sum(), texts=counts.map("{:,}".format), colours=colours)
    ax.set(title="Class balance", xlabel="share of the split")
    return ax


def distribution(shares: Mapping[str, np.ndarray], emotions: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Draw distributions over the emotions side by side: ``{"votes": (emotions,), "model": (emotions,)}``."""
    frame = pd.DataFrame(shares, index=list(emotions))
    ax = _axes(ax, 6.5, 0.7 + 0.24 * frame.size)
    _grouped_bars(ax, frame, texts=frame.map("{:.1%}".format), colours=SERIES)
    ax.set(title="Label distribution", xlabel="share")
    return ax


def probabilities(p: np.ndarray, emotions: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Draw one face's probabilities (emotions,), highest first."""
    ax = _axes(ax, 5, 0.6 + 0.3 * len(emotions))
    order = np.argsort(p)
    names = [emotions[i] for i in order]
    bars = ax.barh(names, p[order], color=[COLOURS[name] for name in names])
    ax.bar_label(bars, [f"{share:.1%}" for share in p[order]], padding=4)
    _percent(ax.xaxis, whole=True)
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
            _percent(ax.yaxis)
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return axes


def confusion(matrix: np.ndarray, emotions: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Draw a confusion matrix of counts, rows true and columns predicted: percent of the row, the count below it."""
    matrix = np.asarray(matrix)
    ax = _axes(ax, 1.4 + 0.8 * len(emotions), 0.9 + 0.66 * len(emotions))
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
    _percent(ax.figure.colorbar(image, ax=ax, label="share of the true emotion").ax.yaxis, whole=True)
    return ax


def per_emotion(shares: Mapping[str, Mapping], *, ax: Axes | None = None) -> Axes:
    """Draw precision and recall: `shares` is `Report.per_emotion`, emotion -> {precision, recall, support, ...}."""
    frame = pd.DataFrame(shares).T
    ax = _axes(ax, 6.5, 0.6 + 0.5 * len(frame))
    pair = frame[["precision", "recall"]]
    pair.index = [f"{emotion} (n = {n:,.0f})" for emotion, n in frame["support"].items()]
    _grouped_bars(ax, pair, texts=pair.map("{:.0%}".format), colours=SERIES)
    ax.set(title="Precision and recall", xlabel="share", xlim=(0, 1.12))
    _percent(ax.xaxis, whole=True)
    return ax


def valence_arousal(affect: np.ndarray, labels: np.ndarray, emotions: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Draw faces in the plane of valence and arousal, float (n, 2) in -1..1, in the colours of their int (n,) labels.

    A large dot is the mean of an emotion.
    """
    ax = _axes(ax, 5.2, 5)
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
    ax = _axes(ax, 6.8, 4.4)
    left, few = np.arange(bins) / bins, rows < 0.01 * len(labels)
    style = {"width": 1 / bins, "align": "edge", "edgecolor": "white", "color": SERIES[2]}
    ax.bar(left[~few], accuracy[~few], **style)
    ax.bar(left[few], accuracy[few], **style, alpha=0.35, label="under 1% of the faces")
    ax.plot(mean[rows > 0], accuracy[rows > 0], "o", color=SERIES[0], markersize=4, label="bin's mean")
    ax.plot([0, 1], [0, 1], "--", color=INK, linewidth=1.5, zorder=3, label="perfectly calibrated")
    ax.set(title=f"Reliability: ECE {ece:.1%} over {len(labels):,} faces", xlabel="confidence", ylabel="accuracy")
    ax.set(xlim=(0, 1), ylim=(0, 1.02))
    _percent(ax.xaxis, whole=True)
    _percent(ax.yaxis, whole=True)
    _legend(ax)
    return ax


def learning_curves(histories: Mapping[str, pd.DataFrame], *, ax: Axes | None = None) -> Axes:
    """Draw accuracy on valid against the seconds of training so far: run's name -> its history.csv, any number."""
    ax = _axes(ax, 8, 3.8)
    for number, (name, frame) in enumerate(histories.items()):
        colour = SERIES[number % len(SERIES)]
        ax.plot(frame["seconds"].cumsum(), frame["valid_accuracy"], "o-", color=colour, markersize=4, label=name)
    ax.set(title="Accuracy on valid after each epoch", xlabel="training, s", ylabel="accuracy", xlim=(0, None))
    _percent(ax.yaxis)
    _legend(ax)
    return ax


def compare_models(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw accuracies with their 95 % intervals, best on top: columns `model`, `accuracy`, `low`, `high`."""
    frame = frame.sort_values("accuracy")
    ax = _axes(ax, 7, 0.9 + 0.42 * len(frame))
    reach = np.stack([frame["accuracy"] - frame["low"], frame["high"] - frame["accuracy"]])
    places = range(len(frame))  # not the names: two may be the same
    ax.errorbar(frame["accuracy"], places, xerr=reach, fmt="o", color=SERIES[0], ecolor=SERIES[2], elinewidth=3)
    ax.set_yticks(places, frame["model"])
    for place, share in zip(places, frame["accuracy"], strict=True):
        ax.annotate(f"{share:.1%}", (share, place), xytext=(0, 7), textcoords="offset points", ha="center")
    ax.set(title="Models compared", xlabel="accuracy, with 95% interval", ylim=(-0.5, len(frame) - 0.3))
    ax.grid(axis="y", visible=False)
    _percent(ax.xaxis)
    return ax


def ablations(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw what changes of a recipe do, the best on top: columns `change`, `gain` and `margin`, both in points.

    Every run is a point with its margin; those of one change share a line.
    """
    order = frame.groupby("change")["gain"].mean().sort_values().index
    ax = _axes(ax, 7, 0.9 + 0.3 * len(order))
    places = order.get_indexer(frame["change"])
    ax.axvline(0, color=QUIET, linestyle="--", linewidth=1, zorder=1)
    ax.errorbar(frame["gain"], places, xerr=frame["margin"], fmt="o", color=SERIES[0], ecolor=SERIES[2], elinewidth=2)
    ax.set(title="What each change does", xlabel="gain in accuracy on valid, points", yticks=range(len(order)))
    ax.set_yticklabels(order)
    ax.grid(axis="y", visible=False)
    return ax


def recalls(shares: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the recall of every emotion (columns, 0..1) by every model (rows)."""
    ax = _axes(ax, 2.4 + 0.85 * shares.shape[1], 2.2 + 0.4 * len(shares))
    _matrix(ax, shares, texts=shares.map("{:.0%}".format), cmap="Blues", limits=(0, 1), label="recall")
    ax.set(title="Of each emotion's faces, named rightly", xlabel="emotion", ylabel="model")
    return ax


def leads(points: pd.DataFrame, sure: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw who beats whom: by how many points the model of a row leads that of a column, with a star where `sure`."""
    far = max(5.0, np.abs(points.to_numpy()).max())
    texts = points.map(lambda lead: f"{lead:+.1f}" if round(lead, 1) else "0.0") + sure.map({True: "*", False: ""}.get)
    texts = texts.mask(np.eye(len(points), dtype=bool), "")
    ax = _axes(ax, 3 + 0.8 * len(points), 1.7 + 0.5 * len(points))
    _matrix(ax, points, texts=texts, cmap="PuOr", limits=(-far, far), label="points of accuracy")
    ax.set(title="Lead of the row over the column (* p < 0.05)", xlabel="compared with", ylabel="network")
    return ax


def agreement(share: pd.DataFrame, kappa: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw how often two models give the same answer, 0..1, and below it Cohen's kappa, by which a cell is coloured."""
    texts = share.map("{:.0%}".format) + kappa.map("\n{:.2f}".format)
    ax = _axes(ax, 3 + 0.8 * len(share), 1.7 + 0.6 * len(share))
    low = min(0.0, float(kappa.to_numpy().min()))
    _matrix(ax, kappa, texts=texts, cmap="Blues", limits=(low, 1), label="Cohen's kappa")
    ax.set(title="Same answers in %, Cohen's kappa below", xlabel="network", ylabel="network")
    return ax


def pareto(frame: pd.DataFrame, *, cost: str, ax: Axes | None = None) -> Axes:
    """Draw accuracy against what a model costs: columns `model`, `cost`, `accuracy`, `low`, `high`, `parameters`.

    cost  what the column `cost` is, with its unit

    A circle's area is the number of parameters, the number in it the rank by accuracy. The line joins the models that
    none beats: no other costs as little and names as many faces rightly.
    """
    ax = _axes(ax, 8, 4.4)
    frame = frame.sort_values(["cost", "accuracy"], ascending=[True, False])
    front = frame[frame["accuracy"] > frame["accuracy"].cummax().shift(fill_value=-1)]
    reach = np.stack([frame["accuracy"] - frame["low"], frame["high"] - frame["accuracy"]])
    ax.errorbar(frame["cost"], frame["accuracy"], yerr=reach, fmt="none", ecolor=QUIET, elinewidth=1, zorder=1)
    ax.step(front["cost"], front["accuracy"], "--", where="post", color=SERIES[1], label="beaten by none", zorder=1)
    areas = 140 + 900 * frame["parameters"] / frame["parameters"].max()
    ax.scatter(frame["cost"], frame["accuracy"], s=areas, color=SERIES[2], alpha=0.8, edgecolor=SERIES[0], zorder=2)
    keys = ax.get_legend_handles_labels()[0]
    ranked = frame.sort_values("accuracy", ascending=False, kind="stable")
    for number, row in enumerate(ranked.itertuples(), start=1):
        text = f"{row.model}, {row.parameters / 1e6:.2g} M"
        ax.annotate(str(number), (row.cost, row.accuracy), ha="center", va="center", fontsize=9)
        keys.append(Line2D([], [], color=INK, linestyle="", marker=f"${number}$", label=text))
    ax.set(title="What accuracy costs", xlabel=cost, ylabel="accuracy, with 95% interval", xscale="log")
    ax.set_xlim(frame["cost"].min() / 1.5, frame["cost"].max() * 1.5)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.12g}")
    ax.xaxis.set_minor_locator(NullLocator())
    _percent(ax.yaxis)
    ax.legend(handles=keys, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    return ax


def robustness(result: Mapping, pictures: Mapping[str, np.ndarray]) -> np.ndarray:
    """Draw accuracy against severity, Axes and a line per model for each corruption; returns Axes (corruptions,).

    result    what `training.robustness` returns
    pictures  corruption -> uint8 (1 + severities, s, s, 1 or 3): a face as it is, then at each severity, drawn above
    """
    names, severities = list(result["corruptions"]), result["severities"]
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(5.2 * columns, 3.1 * rows + 0.5), sharey=True, squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    places = np.arange(1 + len(severities))
    points = min(46.0, 250 / len(places))  # side of a face
    for ax, name in zip(axes.flat, names, strict=False):
        for number, (model, about) in enumerate(result["models"].items()):
            look = {"color": SERIES[number % len(SERIES)], "linestyle": ("-", "--", "-.", ":")[number % 4]}
            look |= {"marker": "os^DvPX*"[number % 8], "markersize": 4.5, "linewidth": 1.6}
            ax.plot(places, [about["accuracy"], *about["corrupted"][name]], **look, label=model)
        for place, picture in zip(places, pictures[name], strict=True):
            face = OffsetImage(picture.squeeze(), zoom=points / len(picture), cmap="gray", clim=(0, 255))
            above = {"xycoords": ("data", "axes fraction"), "box_alignment": (0.5, 0), "frameon": False, "pad": 0}
            ax.add_artist(AnnotationBbox(face, (place, 1.03), **above))
        about = result["corruptions"][name]
        amounts = [f"{severity}\n{amount:g}" for severity, amount in zip(severities, about["amounts"], strict=True)]
        ax.set_xticks(places, ["none", *amounts])
        ax.set(xlabel=f"severity; {about['unit']}", ylabel="accuracy", xlim=(-0.5, len(places) - 0.5))
        ax.set_title(name[0].upper() + name[1:], pad=points + 9)
        _percent(ax.yaxis)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return axes.flat[: len(names)]


def ladder(frame: pd.DataFrame, *, peers: Mapping[str, float] | None = None, ax: Axes | None = None) -> Axes:
    """Draw throughput per rung, grouped by backend: columns `rung`, `backend`, `provider`, `frames_per_s`.

    Rungs keep the order of the rows. The legend names the provider that really ran. A column `bound_frames_per_s` is
    drawn as a mark: what cores that never wait would do. `peers` are lines across, at their frames/s.
    """
    order = frame["rung"].drop_duplicates(), frame["backend"].drop_duplicates()
    table = frame.pivot(index="rung", columns="backend", values="frames_per_s").loc[order]
    provider = frame.groupby("backend")["provider"].first()
    named = table.rename(columns=lambda b: b if provider[b] == b else f"{b}\n({provider[b]})")
    ax = _axes(ax, 8.5, 0.8 + 0.3 * table.size)
    texts, bounded = named.map("{:,.1f}".format), "bound_frames_per_s" in frame
    _grouped_bars(ax, named, texts=texts.map(lambda _: "") if bounded else texts, colours=SERIES, percent=False)
    if bounded:
        bounds = frame.pivot(index="rung", columns="backend", values="bound_frames_per_s").loc[order]
        ends = np.maximum(bounds, table).to_numpy().T
        for bars, bound, end, name in zip(ax.containers, bounds.to_numpy().T, ends, texts, strict=True):
            middles = [bar.get_y() + bar.get_height() / 2 for bar in bars]
            label = "bound: no core ever waits" if name == texts.columns[-1] else None
            ax.plot(bound, middles, "|", color=INK, markersize=9, markeredgewidth=1.5, label=label)
            for x, y, text, most in zip(end, middles, texts[name], bound, strict=True):
                ax.annotate(f"{text} of {most:,.0f}", (x, y), (5, 0), textcoords="offset points", va="center")
        ax.set_xlim(0, 1.3 * ends.max())
    for name, rate in (peers or {}).items():
        ax.axvline(rate, color=QUIET, linestyle="--", linewidth=1, zorder=1, label=f"{name}: {rate:.1f}")
    if peers or bounded:
        _legend(ax)
    ax.set(title="Video throughput", xlabel="frames/s over the whole run")
    return ax


def timeline(table: pd.DataFrame, *, least_s: float = 1.0, most: int = 6) -> np.ndarray:
    """Draw what the table of faces tells of each person: probabilities over time, and the label above; Axes (rows,).

    table    as `FaceTable` writes it; smoothed probabilities are drawn where it has them, raw ones where not
    least_s  people seen for less, in seconds, are left out
    most     rows, for the people seen longest, who come first
    """
    raw = [name for name in COLOURS if name in table]
    smoothed = ["smoothed_" + name for name in raw]
    shown = smoothed if set(smoothed) <= set(table) and table[smoothed].notna().all(axis=None) else raw
    people = {track: _stays(rows) for track, rows in table.sort_values("time_s").groupby("track")}
    seen_s = pd.Series({track: rows["lasts_s"].sum() for track, rows in people.items()}, dtype=float)
    seen_s = seen_s[seen_s >= least_s].sort_values(ascending=False, kind="stable")
    rows = max(1, min(most, len(seen_s)))
    figure, axes = plt.subplots(rows, figsize=(9, 0.9 + 1.25 * rows), sharex=True, squeeze=False, layout="constrained")
    axes, wide = axes[:, 0], 0.7 * BAND / 72 / 6.5 * np.ptp(table["time_s"]) if len(table) else 0.0
    for ax, (track, seconds) in zip(axes, seen_s.items(), strict=False):
        _draw_person(ax, people[track], raw, shown, wide=wide)
        ax.set_title(f"track {int(track)}, seen for {seconds:.1f} s")
    axes[-1].set_xlabel("time, s")
    if len(seen_s) > most:
        axes[0].set_title(f"the {most} of {len(seen_s)} people seen longest", loc="right", fontweight="normal")
    if seen_s.empty:
        axes[0].set_axis_off()
        axes[0].text(0.5, 0.5, f"nobody was seen for {least_s:g} s", ha="center", transform=axes[0].transAxes)
    else:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", reverse=True)
    return axes


def over_time(frame: pd.DataFrame, *, emotions: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Draw one face's probabilities over the clip: column `time_s` and one column per emotion, 0..1.

    Each line is named where it ends; dashes tell apart what colour alone might not.
    """
    emotions = emotions or [name for name in frame if name in COLOURS]
    ax = _axes(ax, 9, 3.4)
    lines = []
    for emotion in emotions:
        dashes = DASHES.get(emotion, "-")
        style = {"color": COLOURS[emotion], "linewidth": 1.8, "label": emotion}
        lines += ax.plot(frame["time_s"], frame[emotion], dashes, **style)
    ax.set(title="One face over time", xlabel="time, s", ylabel="probability", ylim=(-0.02, 1.02))
    ax.margins(x=0)
    _percent(ax.yaxis, whole=True)
    _name_line_ends(ax, lines)
    return ax


def _stays(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one person's rows with `stay`, 0.. by the gaps in which it was not seen, and `lasts_s`, up to the next."""
    step = rows["time_s"].diff().shift(-1)
    usual, gap = step.median(), step > AWAY_S
    return rows.assign(stay=gap.shift(fill_value=False).cumsum(), lasts_s=step.mask(gap).fillna(usual).fillna(0.0))


def _draw_person(ax: Axes, rows: pd.DataFrame, emotions: Sequence[str], shown: Sequence[str], *, wide: float) -> None:
    """Stack one person's probabilities, columns `shown`, and lay a band with the labels above.

    wide  seconds on the time axis that a letter takes
    """
    for number, (_, stay) in enumerate(rows.groupby("stay")):
        stay = pd.concat([stay, stay[-1:].assign(time_s=stay["time_s"] + stay["lasts_s"])])  # to the end of the last
        names = emotions if number == 0 else [f"_{name}" for name in emotions]
        colours = [COLOURS[name] for name in emotions]
        ax.stackplot(stay["time_s"], stay[shown].T, labels=names, colors=colours, alpha=0.8, linewidth=0)
    ax.set(ylim=(0, 1.3), yticks=(0, 0.5, 1), yticklabels=("0%", "50%", "100%"))
    ax.margins(x=0)
    ax.grid(False)
    starts = (rows["label"] != rows["label"].shift()) | (rows["stay"] != rows["stay"].shift())
    runs = rows.groupby(starts.cumsum()).agg({"label": "first", "time_s": "first", "lasts_s": "sum"})
    for label, spans in runs.groupby("label"):
        colour = COLOURS.get(label, QUIET)
        ink = "white" if np.dot(to_rgb(colour), LUMA) < 0.43 else INK
        ax.broken_barh(spans[["time_s", "lasts_s"]].to_numpy(), (1.06, 0.22), color=colour, linewidth=0)
        for start, seconds in spans.loc[spans["lasts_s"] > wide * len(label), ["time_s", "lasts_s"]].to_numpy():
            ax.text(start + seconds / 2, 1.17, label, size=BAND, color=ink, ha="center", va="center_baseline")


def _axes(ax: Axes | None, width: float, height: float) -> Axes:
    """Return `ax`, or new Axes of this size in inches."""
    return ax if ax is not None else plt.subplots(figsize=(width, height), layout="constrained")[1]


def _wrapped(title: str, width: float) -> str:
    """Return a title over a picture, broken where it is wider than `width` inches."""
    letters = int(72 * width / (0.53 * SHEET))  # of the mean width in the default typeface
    return "\n".join(textwrap.fill(line, letters) for line in str(title).split("\n"))


def _under_map(images: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Return pictures (..., 3), 0..255, under maps (...), 0..1."""
    heat, share = 255 * plt.get_cmap("inferno")(strength)[..., :3], 0.7 * strength[..., None]
    return images * (1 - share) + heat * share


def _name_line_ends(ax: Axes, lines: Sequence[Line2D]) -> None:
    """Write each line's label to the right of its last value, as near as the labels above and below it let it."""
    ends = {line: values[-1] for line in lines if len(values := line.get_ydata()[np.isfinite(line.get_ydata())])}
    lines, y = sorted(ends, key=ends.get), sorted(ends.values())
    low, high = ax.get_ylim()
    inches = ax.figure.get_figheight() * ax.get_position().height
    gap = (high - low) * min(1.35 * plt.rcParams["font.size"] / 72 / inches, 1 / max(len(lines), 1))
    for i in range(1, len(y)):  # apart, upward
        y[i] = max(y[i], y[i - 1] + gap)
    for i, line in reversed(list(enumerate(lines))):  # and back under the top
        y[i] = min(y[i], high if i == len(y) - 1 else y[i + 1] - gap)
        across = ax.get_yaxis_transform()  # x in shares of the width, y in data
        look = {"color": line.get_color(), "linestyle": line.get_linestyle(), "linewidth": 1}
        stub = Line2D([1, 1.02, 1.06], [ends[line], y[i], y[i]], transform=across, clip_on=False, **look)
        ax.add_artist(stub)
        ax.text(1.065, y[i], line.get_label(), va="center", transform=across)


def _matrix(ax: Axes, values: pd.DataFrame, *, texts: pd.DataFrame, cmap: str, limits: tuple, label: str) -> None:
    """Draw a table as coloured cells with a text in each; the scale at the side is `label`, from limit to limit."""
    image = ax.imshow(values, cmap=cmap, vmin=limits[0], vmax=limits[1], aspect="auto")
    for place, text in np.ndenumerate(texts):
        ink = "white" if np.dot(image.to_rgba(values.to_numpy()[place])[:3], LUMA) < 0.5 else INK
        ax.text(*place[::-1], text, color=ink, ha="center", va="center", fontsize=10)
    ax.set_xticks(range(values.shape[1]), values.columns, rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(values)), values.index)
    ax.grid(visible=False)
    bar = ax.figure.colorbar(image, ax=ax, label=label)
    if limits == (0, 1) and label == "recall":
        _percent(bar.ax.yaxis, whole=True)


def _percent(axis, *, whole: bool = False) -> None:
    """Write 0..1 as percent; on a `whole` axis, which runs up to 1, a tick every 20 %."""
    axis.set_major_formatter(lambda share, _: f"{100 * share:.4g}%")
    if whole:
        axis.set_ticks(np.linspace(0, 1, 6))


def _legend(ax: Axes) -> None:
    """Put the legend beside the Axes, where it covers nothing."""
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)


def _grouped_bars(
    ax: Axes, frame: pd.DataFrame, *, texts: pd.DataFrame, colours: Sequence, percent: bool = True
) -> None:
    """Draw horizontal bars, one group per row from the top, one colour per column, a text at each bar's end."""
    thickness = 0.8 / frame.shape[1]
    for number, (name, colour) in enumerate(zip(frame, colours, strict=False)):
        y = np.arange(len(frame)) + (number - (frame.shape[1] - 1) / 2) * thickness
        bars = ax.barh(y, frame[name], thickness * 0.92, color=colour, label=name)
        ax.bar_label(bars, texts[name], padding=3)
    ax.set_yticks(range(len(frame)), frame.index)
    ax.set_xlim(0, np.nanmax(frame.to_numpy()) * 1.14)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    if percent:
        _percent(ax.xaxis)
    _legend(ax)
