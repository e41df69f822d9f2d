"""Figures of faces: sheets of them, under maps, cut into patches."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap

from fer_tf.plots.shared import INK, ensure_axes

SHEET = 10.5  # points of a title over a picture: it still reads at half the size


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
    maps    what the row is called -> float (n, s, s), 0..1, drawn as `saliency_grid` does, but the brightest hundredth
            of each map at its full, since a few pixels of integrated gradients would else outshine all others
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
            full = 1.0 if own is None else np.quantile(own[i], 0.99) or 1.0
            under = images[i] if own is None else _under_map(images[i], np.clip(own[i] / full, 0, 1)).astype(np.uint8)
            ax.imshow(np.full_like(images[i], 238) if empty else under)
            if empty:
                middle = images.shape[2] / 2 - 0.5, images.shape[1] / 2 - 0.5
                ax.text(*middle, "no evidence", ha="center", va="center", fontsize=SHEET, color=INK)
        label = _wrapped(name.replace("_", " "), 1.25)
        row[0].text(-0.06, 0.5, label, ha="right", va="center", fontsize=SHEET, transform=row[0].transAxes)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(_wrapped(title, 1.25), fontsize=SHEET, fontweight="normal", loc="center", pad=3)
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
    ax = ensure_axes(ax, 2.6 if columns == side else 9, 2.9 if columns == side else 0.5 + 9 * height / width)
    ax.imshow(sheet.reshape(rows, columns, *sheet.shape[1:]).swapaxes(1, 2).reshape(height, width, 3))
    ax.set(title=f"{side * side} patches of {patch_size} px", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def _wrapped(title: str, width: float) -> str:
    """Return a title over a picture, broken where it is wider than `width` inches."""
    letters = int(72 * width / (0.53 * SHEET))  # of the mean width in the default typeface
    return "\n".join(textwrap.fill(line, letters) for line in str(title).split("\n"))


def _under_map(images: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Return pictures (..., 3), 0..255, under maps (...), 0..1."""
    heat, share = 255 * plt.get_cmap("inferno")(strength)[..., :3], 0.7 * strength[..., None]
    return images * (1 - share) + heat * share
