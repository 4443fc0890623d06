"""python -m vidcfg.families: the pipelines that vidcfg can guide, as a table."""
