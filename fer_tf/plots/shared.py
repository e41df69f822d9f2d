"""The house style, and what figures of several kinds are drawn with."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes

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
QUIET, INK = "#8a8a8a", "#222222"


def use_style() -> None:
    """Set matplotlib's defaults to the house style, for the rest of the process or of an enclosing `rc_context`."""
    plt.rcParams.update(STYLE)


def ensure_axes(ax: Axes | None, width: float, height: float) -> Axes:
    """Return `ax`, or new Axes of this size in inches."""
    return ax if ax is not None else plt.subplots(figsize=(width, height), layout="constrained")[1]


def in_percent(axis, *, whole: bool = False) -> None:
    """Write 0..1 as percent; on a `whole` axis, which runs up to 1, a tick every 20 %."""
    axis.set_major_formatter(lambda share, _: f"{100 * share:.4g}%")
    if whole:
        axis.set_ticks(np.linspace(0, 1, 6))


def legend_beside(ax: Axes) -> None:
    """Put the legend beside the Axes, where it covers nothing."""
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)


def grouped_bars(
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
        in_percent(ax.xaxis)
    legend_beside(ax)
