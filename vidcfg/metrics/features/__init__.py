"""Nets that turn clips into feature vectors for distances between sets."""
