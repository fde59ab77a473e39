"""Nodes that make a video without a generative model: the draft of a shot."""
