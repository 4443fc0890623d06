"""The public place of `FrameGuidance`, a guider for guider-based pipelines of diffusers."""

from vidcfg.extras import explained

with explained("vidcfg.diffusers"):
    from vidcfg.pipelines.guider import FrameGuidance

__all__ = ["FrameGuidance"]
