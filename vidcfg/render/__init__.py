"""python -m vidcfg.render config.yaml: a configuration to videos on disk."""
