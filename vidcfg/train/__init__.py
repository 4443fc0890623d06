"""Training of the mini model: `python -m vidcfg.train config.yaml`."""
