"""Figures of what lies inside a network: its embeddings, and how good the maps of its evidence are."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from fer_tf.labels import COLOURS
from fer_tf.plots.shared import INK, SERIES, ensure_axes, in_percent, legend_beside


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
        in_percent(ax.xaxis, whole=True)
        in_percent(ax.yaxis, whole=True)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), title="map: area under the curve")
    axes[0].set_ylabel("probability of the answer")
    return axes


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
    ax = ensure_axes(ax, 5.6, 4.8)
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
    ax = ensure_axes(ax, 7.4, 5.4)
    for k, emotion in enumerate(emotions):
        x, y = points[labels == k].T
        look = {"marker": "os^DvPX*"[k % 8], "edgecolor": "white", "linewidth": 0.4}
        ax.scatter(x, y, s=34, color=COLOURS[emotion], label=f"{emotion} (n = {len(x):,})", **look)
    ax.set(title="Embeddings in the plane", xlabel="no unit", ylabel="no unit", xticks=[], yticks=[])
    legend_beside(ax)
    return ax


def cosines(matrix: np.ndarray, emotions: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Draw mean cosines between emotions, symmetric (emotions, emotions) in -1..1, written into each cell."""
    matrix = np.asarray(matrix)
    ax = ensure_axes(ax, 1.4 + 0.8 * len(emotions), 0.9 + 0.66 * len(emotions))
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
