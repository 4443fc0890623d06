"""A grid of guidance settings, rendered and measured on one machine or on many."""
