"""The public place of `FrameGuidance`, a guider for guider-based pipelines of diffusers."""

from vidcfg.pipelines.guider import FrameGuidance

__all__ = ["FrameGuidance"]
