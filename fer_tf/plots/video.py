"""Figures of clips: how fast they are worked on, and what they show over time."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from fer_tf.faces import LUMA
from fer_tf.labels import COLOURS
from fer_tf.plots.shared import INK, QUIET, SERIES, ensure_axes, grouped_bars, in_percent, legend_beside

AWAY_S = 0.5  # seconds without a row after which a person is drawn as away
BAND = 7.5  # points of a label on a band
DASHES = {"angry": "--", "fear": "--", "disgust": "-.", "contempt": ":"}  # no two similar colours share one


def ladder(frame: pd.DataFrame, *, peers: Mapping[str, float] | None = None, ax: Axes | None = None) -> Axes:
    """Draw throughput per rung, grouped by backend: columns `rung`, `backend`, `provider`, `frames_per_s`.

    Rungs keep the order of the rows. The legend names the provider that really ran. A column `bound_frames_per_s` is
    drawn as a mark: what cores that never wait would do. `peers` are lines across, at their frames/s.
    """
    order = frame["rung"].drop_duplicates(), frame["backend"].drop_duplicates()
    table = frame.pivot(index="rung", columns="backend", values="frames_per_s").loc[order]
    provider = frame.groupby("backend")["provider"].first()
    named = table.rename(columns=lambda b: b if provider[b] == b else f"{b}\n({provider[b]})")
    ax = ensure_axes(ax, 8.5, 0.8 + 0.3 * table.size)
    texts, bounded = named.map("{:,.1f}".format), "bound_frames_per_s" in frame
    grouped_bars(ax, named, texts=texts.map(lambda _: "") if bounded else texts, colours=SERIES, percent=False)
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
        legend_beside(ax)
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
    ax = ensure_axes(ax, 9, 3.4)
    lines = []
    for emotion in emotions:
        dashes = DASHES.get(emotion, "-")
        style = {"color": COLOURS[emotion], "linewidth": 1.8, "label": emotion}
        lines += ax.plot(frame["time_s"], frame[emotion], dashes, **style)
    ax.set(title="One face over time", xlabel="time, s", ylabel="probability", ylim=(-0.02, 1.02))
    ax.margins(x=0)
    in_percent(ax.yaxis, whole=True)
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
