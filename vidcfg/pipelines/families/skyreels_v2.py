"""SkyReels-V2: Wan under another name, with one model."""

from dataclasses import replace

from vidcfg.pipelines.families import wan

FAMILY = replace(
    wan.FAMILY,
    name="skyreels_v2",
    pipelines=("SkyReelsV2Pipeline", "SkyReelsV2ImageToVideoPipeline"),
    denoisers={"transformer": None},
    expert_of=None,
    default_scale=6.0,
    usual_range=(3.0, 8.0),
)
