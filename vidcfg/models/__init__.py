"""Models: the embedded one and its parts, the pipeline families, named weight files."""
