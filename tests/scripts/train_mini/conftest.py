"""A training configuration that runs in seconds."""

import pytest

TINY = """
schema: 1
threads: 1
precision: float32
run_dir: {folder}/run
output: {folder}/export
data: {{num_clips: 24, num_frames: 5, height: 8, width: 8}}
codec: {{latent_channels: 4, decoder_width: 8, decoder_layers: 1, num_clips: 24, max_steps: 2}}
transformer:
  width: 24
  num_layers: 2
  num_heads: 2
  text_width: 16
  attention_backend: math
  max_steps: {steps}
  batch_size: 8
  micro_batch: 4
  warmup_steps: 2
  weak_at: 0.5
scorer: {{width: 8, embed: 16, num_clips: 24, max_steps: 2, batch_size: 8}}
"""


@pytest.fixture
def tiny_file(tmp_path):
    def write(steps=2, folder=tmp_path):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "tiny.yaml"
        path.write_text(TINY.format(folder=folder, steps=steps))
        return path

    return write
