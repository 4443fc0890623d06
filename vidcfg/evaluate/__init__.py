"""The command `vidcfg evaluate`: videos in, metric records out."""
