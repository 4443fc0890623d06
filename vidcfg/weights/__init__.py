"""The command `vidcfg weights`: list, fetch and verify named weight files."""
