"""Facial emotion recognition: a notebook suite's reusable code. Importing this loads nothing heavy."""

import sys

__version__ = "0.1.0"

# OpenVINO and NNCF report their use to a server unless this package is missing; what faces are looked at stays here.
sys.modules.setdefault("openvino_telemetry", None)
