"""What a training file may say. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vidcfg.settings.document import apply_overrides, load_document

Whole = Annotated[int, Field(ge=1, le=10**9)]
Above0 = Annotated[float, Field(gt=0, le=1e6)]
Bent = Annotated[float, Field(ge=-10, le=10)]
TrainSeed = Annotated[int, Field(ge=0, lt=1 << 63)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Share = Annotated[float, Field(ge=0.0, le=1.0)]


class DataConfig(_Strict):
    """The clips: how many, how large; shares of those whose colour or motion turns and of those
    with a fault; and how loose their captions are (`train_mini.data.loose_caption`).
    """

    num_clips: Whole = 60000
    num_frames: Whole = 17
    height: Whole = 32
    width: Whole = 32
    seed: TrainSeed = 0
    turns: Share = 0.3
    blurry: Share = 0.05
    shaky: Share = 0.12
    flickering: Share = 0.12
    wrong: Share = 0.3
    partial: Share = 0.3
    told: Share = 0.5


class CodecConfig(_Strict):
    """The codec: `num_clips` for the closed-form encoder, then `minutes` of training for its
    decoder.
    """

    latent_channels: Whole = 16
    stride: Whole = 4
    patch: Whole = 4
    scaling_power: Bent = 0.8
    decoder_width: int = Field(96, ge=0, le=65536)
    decoder_layers: int = Field(3, ge=0, le=1000)
    num_clips: Whole = 3000
    minutes: Above0 = 6.0
    max_steps: Whole | None = None
    batch_size: Whole = 32
    learning_rate: Above0 = 2e-3
    noise: float = Field(0.3, ge=0.0, le=100.0)


class TransformerConfig(_Strict):
    """The ST-DiT with its text encoder. `minutes` is the wall-clock budget that the schedule
    decays over.
    """

    width: Whole = 192
    num_layers: Whole = 8
    num_heads: Whole = 3
    mlp_ratio: Above0 = 3.0
    attention: Literal["full", "factorised"] = "full"
    attention_backend: Literal["sdpa", "math", "xformers"] = "sdpa"
    text_width: Whole = 128
    text_layers: Whole = 1
    minutes: Above0 = 100.0
    max_steps: Whole | None = None
    batch_size: Whole = 64
    micro_batch: Whole = 16
    optimizer: Literal["muon", "adamw"] = "muon"
    learning_rate: Above0 = 1.5e-3
    matrix_rate: Above0 = 4e-3
    weight_decay: float = Field(0.01, ge=0.0, le=100.0)
    warmup_steps: Whole = 60
    decay_from: float = Field(0.4, ge=0.0, le=1.0)
    clip_norm: Above0 = 1.0
    drop_condition: float = Field(0.1, ge=0.0, le=1.0)
    null: Literal["text", "zeros", "learned"] = "text"
    time_shift: Bent = 0.4
    ema: float = Field(0.998, ge=0.0, lt=1.0)
    weak_at: float = Field(0.15, ge=0.0, le=1.0)
    sampling_shift: Above0 = 5.0


class ScorerConfig(_Strict):
    """The video-text scorer."""

    width: Whole = 32
    embed: Whole = 128
    num_clips: Whole = 8000
    minutes: Above0 = 8.0
    max_steps: Whole | None = None
    batch_size: Whole = 64
    learning_rate: Above0 = 2e-3


class TrainConfig(_Strict):
    """A whole training run. `run_dir` holds caches, checkpoints, log and samples; `output` the
    finished model. `start` is the folder of a finished model whose transformer is trained on;
    its codec, scorer and weak checkpoint are kept. With `anew` the first two alone are, and the
    transformer is a new one. Off: None, all are trained anew.
    """

    schema_: Literal[1] = Field(1, alias="schema")
    name: str = "mini"
    seed: TrainSeed = 0
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:[0-9]{1,3})?)$")] = "cpu"
    threads: Whole | None = None
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    is_compiled: bool = False
    run_dir: Annotated[Path, Field(strict=False)] = Path("runs/mini")
    output: Annotated[Path, Field(strict=False)] = Path("runs/mini/export")
    start: Annotated[Path, Field(strict=False)] | None = None
    anew: bool = False
    checkpoint_minutes: Above0 = 4.0
    sample_minutes: Above0 = 12.0
    data: DataConfig = DataConfig()
    codec: CodecConfig = CodecConfig()
    transformer: TransformerConfig = TransformerConfig()
    scorer: ScorerConfig = ScorerConfig()


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a file of strict YAML; `overrides` such as "transformer.minutes=5".

    Raises:
        ValueError: naming the file, the line and every wrong key or value.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file. Try configs/train/mini.yaml.")
    document = apply_overrides(load_document(path), overrides)
    try:
        config = TrainConfig.model_validate(dict(document.data))
    except ValidationError as error:
        lines = [
            f"{document.locate(e['loc'])}: {'.'.join(map(str, e['loc']))}: {e['msg']}"
            for e in error.errors()
        ]
        raise ValueError("\n".join(lines)) from None
    if config.start and not (config.start / "model_index.json").is_file():
        raise ValueError(
            f"{document.locate(('start',))}: start: {config.start} holds no model_index.json. "
            "Name the folder of a finished model, such as vidcfg/mini/checkpoint."
        )
    if config.anew and not config.start:
        raise ValueError(
            f"{document.locate(('anew',))}: anew has an effect beside `start` alone. Delete it."
        )
    return config
