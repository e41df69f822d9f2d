"""Figures of several models side by side."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.ticker import LogLocator, NullLocator

from fer_tf.faces import LUMA
from fer_tf.plots.shared import INK, QUIET, SERIES, ensure_axes, in_percent, legend_beside


def learning_curves(histories: Mapping[str, pd.DataFrame], *, ax: Axes | None = None) -> Axes:
    """Draw accuracy on valid against the seconds of training so far: run's name -> its history.csv, any number."""
    ax = ensure_axes(ax, 8, 3.8)
    for number, (name, frame) in enumerate(histories.items()):
        colour = SERIES[number % len(SERIES)]
        ax.plot(frame["seconds"].cumsum(), frame["valid_accuracy"], "o-", color=colour, markersize=4, label=name)
    ax.set(title="Accuracy on valid after each epoch", xlabel="training, s", ylabel="accuracy", xlim=(0, None))
    in_percent(ax.yaxis)
    legend_beside(ax)
    return ax


def compare_models(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw accuracies with their 95 % intervals, best on top: columns `model`, `accuracy`, `low`, `high`."""
    frame = frame.sort_values("accuracy")
    ax = ensure_axes(ax, 7, 0.9 + 0.42 * len(frame))
    reach = np.stack([frame["accuracy"] - frame["low"], frame["high"] - frame["accuracy"]])
    places = range(len(frame))  # not the names: two may be the same
    ax.errorbar(frame["accuracy"], places, xerr=reach, fmt="o", color=SERIES[0], ecolor=SERIES[2], elinewidth=3)
    ax.set_yticks(places, frame["model"])
    for place, share in zip(places, frame["accuracy"], strict=True):
        ax.annotate(f"{share:.1%}", (share, place), xytext=(0, 7), textcoords="offset points", ha="center")
    ax.set(title="Models compared", xlabel="accuracy, with 95% interval", ylim=(-0.5, len(frame) - 0.3))
    ax.grid(axis="y", visible=False)
    in_percent(ax.xaxis)
    return ax


def ablations(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw what changes of a recipe do, the best on top: columns `change`, `gain` and `margin`, both in points.

    Every run is a point with its margin; those of one change share a line.
    """
    order = frame.groupby("change")["gain"].mean().sort_values().index
    ax = ensure_axes(ax, 7, 0.9 + 0.3 * len(order))
    places = order.get_indexer(frame["change"])
    ax.axvline(0, color=QUIET, linestyle="--", linewidth=1, zorder=1)
    ax.errorbar(frame["gain"], places, xerr=frame["margin"], fmt="o", color=SERIES[0], ecolor=SERIES[2], elinewidth=2)
    ax.set(title="What each change does", xlabel="gain in accuracy on valid, points", yticks=range(len(order)))
    ax.set_yticklabels(order)
    ax.grid(axis="y", visible=False)
    return ax


def recalls(shares: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the recall of every emotion (columns, 0..1) by every model (rows)."""
    ax = ensure_axes(ax, 2.4 + 0.85 * shares.shape[1], 2.2 + 0.4 * len(shares))
    _matrix(ax, shares, texts=shares.map("{:.0%}".format), cmap="Blues", limits=(0, 1), label="recall")
    ax.set(title="Of each emotion's faces, named rightly", xlabel="emotion", ylabel="model")
    return ax


def leads(points: pd.DataFrame, sure: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw who beats whom: by how many points the model of a row leads that of a column, with a star where `sure`."""
    far = max(5.0, np.abs(points.to_numpy()).max())
    texts = points.map(lambda lead: f"{lead:+.1f}" if round(lead, 1) else "0.0") + sure.map({True: "*", False: ""}.get)
    texts = texts.mask(np.eye(len(points), dtype=bool), "")
    ax = ensure_axes(ax, 3 + 0.8 * len(points), 1.7 + 0.5 * len(points))
    _matrix(ax, points, texts=texts, cmap="PuOr", limits=(-far, far), label="points of accuracy")
    ax.set(title="Lead of the row over the column (* p < 0.05)", xlabel="compared with", ylabel="network")
    return ax


def agreement(share: pd.DataFrame, kappa: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw how often two models give the same answer, 0..1, and below it Cohen's kappa, by which a cell is coloured."""
    texts = share.map("{:.0%}".format) + kappa.map("\n{:.2f}".format)
    ax = ensure_axes(ax, 3 + 0.8 * len(share), 1.7 + 0.6 * len(share))
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
    ax = ensure_axes(ax, 8, 4.4)
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
    in_percent(ax.yaxis)
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
        in_percent(ax.yaxis)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return axes.flat[: len(names)]


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
        in_percent(bar.ax.yaxis, whole=True)
