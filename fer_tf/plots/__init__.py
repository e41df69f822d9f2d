"""Every figure of the notebooks and reports: data and an optional Axes in, Axes out, never shown.

Shares come in as 0..1 and are drawn in percent. Call `use_style()` once before; each figure is readable without it.
"""

from fer_tf.plots.comparing import (
    ablations,
    agreement,
    compare_models,
    leads,
    learning_curves,
    pareto,
    recalls,
    robustness,
)
from fer_tf.plots.inside import cosines, covering, embedding_map, position_similarity
from fer_tf.plots.judging import (
    class_balance,
    confusion,
    distribution,
    history,
    per_emotion,
    probabilities,
    reliability,
    valence_arousal,
)
from fer_tf.plots.pictures import contact_sheet, patches, saliency_grid, saliency_table
from fer_tf.plots.shared import SERIES, STYLE, use_style
from fer_tf.plots.video import ladder, over_time, timeline

__all__ = [
    "SERIES",
    "STYLE",
    "ablations",
    "agreement",
    "class_balance",
    "compare_models",
    "confusion",
    "contact_sheet",
    "cosines",
    "covering",
    "distribution",
    "embedding_map",
    "history",
    "ladder",
    "leads",
    "learning_curves",
    "over_time",
    "pareto",
    "patches",
    "per_emotion",
    "position_similarity",
    "probabilities",
    "recalls",
    "reliability",
    "robustness",
    "saliency_grid",
    "saliency_table",
    "timeline",
    "use_style",
    "valence_arousal",
]
