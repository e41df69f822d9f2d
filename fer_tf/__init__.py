"""Facial emotion recognition: a notebook suite's reusable code. Importing this loads nothing heavy."""

__version__ = "0.1.0"
