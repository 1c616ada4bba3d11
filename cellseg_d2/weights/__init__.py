"""Weights: read without running code, fitted to a network, and handed on as model folders."""
