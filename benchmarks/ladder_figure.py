"""Draws what `fer-tf bench --output` and benchmarks/peers/fer_video.py measured.

python benchmarks/ladder_figure.py reports/video.json reports/video.png
"""

import json
import sys
from pathlib import Path

import pandas as pd

from fer_tf import plots


def main(result: str, figure: str) -> None:
    """Draw the rungs with their bounds, and the peers as lines."""
    plots.use_style()
    known = json.loads(Path(result).read_text(encoding="utf-8"))
    peers = {f"{name} {peer['version']}": peer["frames_per_s"] for name, peer in known.get("peers", {}).items()}
    rungs = pd.DataFrame(known["rungs"]).rename(columns={"name": "rung"})
    ax = plots.ladder(rungs, peers=peers)
    clip, host = known["clip"], known["host"]
    about = f"{known['model']}, {known['detector']}, {clip['width']} x {clip['height']}"
    ax.set_title(f"Video throughput: {about}, {host['cores']} cores of {host['cpu']}")
    ax.figure.savefig(figure, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
