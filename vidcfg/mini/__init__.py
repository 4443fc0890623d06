"""The embedded model: moving shapes, codec, text encoder, ST-DiT, pipeline and scorer."""
