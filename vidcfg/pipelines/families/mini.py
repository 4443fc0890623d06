"""The embedded mini model: laid out and stepped as Wan."""

from vidcfg.mini import SIZE_MULTIPLE
from vidcfg.pipelines.family import MASKED_TEXTS, Blocks, Family


def _grid(module, arguments, layer: int) -> tuple[int, int, int]:
    """All positions; in a factorised model, a frame in even layers and a place in odd ones."""
    frames, height, width = arguments["hidden_states"].shape[2:]
    if module.config.attention == "full":
        return frames, height, width
    return (1, height, width) if layer % 2 == 0 else (frames, 1, 1)


FAMILY = Family(
    name="mini",
    module="vidcfg.mini.pipeline",
    pipelines=("MiniVideoPipeline",),
    frame_rule="4k + 1",
    tested="exact",
    **MASKED_TEXTS,
    blocks=Blocks(
        ("transformer_blocks",), returns=("x",), layers={"stg": (6,), "slg": (3,)}, grid=_grid
    ),
    combines_in_float32=True,
    size_multiple=SIZE_MULTIPLE,
    default_scale=3.0,
    usual_range=(1.0, 12.0),
)
