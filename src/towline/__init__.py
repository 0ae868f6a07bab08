"""Towline: develop one service of an app that lives on Kubernetes."""

__version__ = "0.1.0"
