"""What the scripts of all peers share: FER2013's test rows, and a line of reports/peers.json. NumPy only."""

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]


def test_rows() -> dict[str, np.ndarray]:
    """Return what rows.py wrote: images uint8 (n, 48, 48), labels (n,), clean bool (n,), the 7 emotions."""
    with np.load(ROOT / "data" / "peers_test.npz") as rows:
        return dict(rows)


def write(package: str, found: dict[str, np.ndarray], rows: dict) -> None:
    """Judge the emotions (n,) that each network of a package named, as places in FER2013's order."""
    labels, clean = rows["labels"], rows["clean"]
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "version": version(package),
        "n": len(labels),
        "n_clean": int(clean.sum()),
    }
    for network, named in found.items():
        pairs = np.bincount(labels * 7 + named, minlength=49).reshape(7, 7)
        f1 = 2 * pairs.diagonal() / np.maximum(pairs.sum(axis=0) + pairs.sum(axis=1), 1)
        hits = named == labels
        shares = {"accuracy": hits.mean(), "accuracy_clean": hits[clean].mean(), "macro_f1": f1.mean()}
        about[network] = {figure: round(float(share), 4) for figure, share in shares.items()}
    path = ROOT / "reports" / "peers.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(known | {package: about}, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(about, indent=2))
