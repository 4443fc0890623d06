import pytest

from vidcfg.render.config import load_render_config
from vidcfg.settings.errors import ConfigError

TEXT = """\
# Run: nothing
schema: 1
name: kite
model: {kind: mini}
prompts:
  - {text: a red circle moving left, negative: ""}
  - {text: a blue cross moving up, negative: ""}
seeds: 0-1
video: {num_frames: 17, height: 32, width: 48, fps: 8}
sampling: {num_steps: 30, scheduler: flow_euler}
guidance:
  method: cfg
  scale: {kind: cosine, start: 10.0, end: 2.0}
  frames: {kind: keyframes, at: [first, middle, last], floor: 0.4, reach: 4}
  rescale: 0.7
output: {dir: out/kite, video: h264, enlarge: 8}
"""
SCALE_LINE = "  scale: {kind: cosine, start: 10.0, end: 2.0}"
FRAMES_LINE = "  frames: {kind: keyframes, at: [first, middle, last], floor: 0.4, reach: 4}"


class Kite:
    """The file `kite.yaml` of TEXT above, with lines changed; `scale` is line 13, `frames` 14."""

    def __init__(self, folder):
        self.path = folder / "kite.yaml"

    def write(self, *, scale=None, frames=None, old="", new="", text=TEXT):
        assert old in text
        text = text.replace(old, new, 1)
        if scale is not None:
            text = text.replace(SCALE_LINE, f"  scale: {scale}")
        if frames is not None:
            text = text.replace(FRAMES_LINE, f"  frames: {frames}")
        self.path.write_text(text, encoding="utf-8")
        return self.path

    def load(self, *overrides, seeds=None, **changes):
        return load_render_config(self.write(**changes), overrides, seeds=seeds)

    def error(self, *overrides, seeds=None, **changes):
        """The text of the error, the folder left out."""
        with pytest.raises(ConfigError) as caught:
            self.load(*overrides, seeds=seeds, **changes)
        return str(caught.value).replace(f"{self.path.parent}/", "")


@pytest.fixture
def kite(tmp_path):
    return Kite(tmp_path)
