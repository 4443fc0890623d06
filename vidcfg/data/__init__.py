"""Procedural captioned clips with known attributes."""
