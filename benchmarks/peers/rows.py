"""Writes FER2013's test rows for the peers, which do not share our environment: data/peers_test.npz.

.venv/bin/python benchmarks/peers/rows.py
"""

import numpy as np

from fer_tf import paths
from fer_tf.data.readers import load

data = load("fer2013")
rows = {"images": data.test.images[..., 0], "labels": data.test.labels, "clean": data.audit.clean["test"]}
np.savez(paths.DATA / "peers_test.npz", **rows, emotions=data.emotions)
