"""How one kind of pipeline names its inputs and lays out its latents."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from inspect import Parameter
from typing import Any

from torch import Tensor

from vidcfg.guidance.frame_map import BesideMap, CausalMap, FrameMap, OneToOneMap
from vidcfg.guidance.layout import FrameLayout

Grid = tuple[int, int, int]
"""Latent frames, rows and columns in which the video tokens of a denoiser call stand."""


@dataclass(frozen=True)
class Blocks:
    """The transformer blocks of a denoiser, and how tokens run through them.

    Args:
        lists: paths of the lists of blocks; layer i counts through all of them in this order.
        attention: attribute of a block that holds the attention over video tokens.
        joint: where text tokens stand in that attention: "before" or "after" the video tokens,
            None where video tokens are alone.
        returns: the block's arguments that a skipped block hands on, in the order of its results.
        layers: rule -> layers that are perturbed where the user names none. "stg" serves the rules
            that are not listed; without it, the middle layer does. "all" means every layer.
        grid: (denoiser, its arguments, layer) -> token grid (F, H, W) of that layer; None reads it
            from the latents and the patch size of the denoiser's config.
        own: kind of perturbation -> (denoiser, numbers of layers) -> arguments by which it makes
            that by itself, in all its streams; empty where it cannot.
    """

    lists: tuple[str, ...] = ("transformer_blocks",)
    attention: str = "attn1"
    joint: str | None = None
    returns: tuple[str, ...] = ("hidden_states",)
    layers: Mapping[str, tuple[int, ...] | str] = field(default_factory=dict)
    grid: Callable[[Any, Mapping[str, Any], int], Grid] | None = None
    own: Mapping[str, Callable[[Any, list[int]], dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class SecondStream:
    """A further output of the denoiser that is guided by one scale, the same for all its frames.

    Args:
        noisy: argument of the denoiser with its noisy latents, [B, ...].
        output: its place in the tuple that the denoiser returns.
        scale_argument: argument of the pipeline call that holds its scale.
        fallback: scale where that argument is None.
    """

    noisy: str
    output: int
    scale_argument: str
    fallback: float

    def scale_of(self, call: Mapping[str, Any]) -> float:
        """The scale that a pipeline call asks for."""
        scale = call.get(self.scale_argument)
        return self.fallback if scale is None else scale


@dataclass(frozen=True)
class Adapter:
    """A part that makes the pipeline of this family of another family's checkpoint.

    Args:
        part: name of the part in the pipeline, and of the setting `model.<part>`.
        cls: its class in diffusers.
        scheduler: the checkpoint's scheduler -> the one that the part was trained with.
    """

    part: str
    cls: str
    scheduler: Callable[[Any], Any]


@dataclass(frozen=True)
class ImagePrompt:
    """Embeddings of images that lead a run beside its texts (IP-Adapter).

    Args:
        argument: denoiser argument that holds a list of them, one tensor for each adapter.
        unconditional: (pipeline, its call, that list, samples) -> the list that the unconditional
            side sees, as in the stock pipeline.
        in_halves: whether the call may hold an unconditional and a conditional row, in this order.
        negative: arguments of the pipeline call that `unconditional` reads.
    """

    argument: str
    unconditional: Callable[[Any, Mapping[str, Any], list[Tensor], int], list[Tensor]]
    in_halves: bool = False
    negative: tuple[str, ...] = ()


@dataclass(frozen=True)
class FrameLevels:
    """Noise levels of their own for the frames, which the pipeline lists before its loop.

    Args:
        method: pipeline method that makes the list.
        read: its result -> timesteps and steps of the frames in each denoiser call [N, F], numpy;
            a step of -1 where a frame is not denoised.
    """

    method: str
    read: Callable[[Any], tuple[Any, Any]]


_EMBEDS = "prompt_embeds"

_STRIDES = (
    "vae_scale_factor_temporal",
    "vae_temporal_compression_ratio",
    "vae_temporal_scale_factor",
)
"""What pipelines call the number of pixel frames that a latent frame makes."""


def _causal(pipe: Any) -> FrameMap:
    name = next((name for name in _STRIDES if hasattr(pipe, name)), _STRIDES[0])
    return CausalMap(getattr(pipe, name))


def one_to_one(pipe: Any) -> FrameMap:
    """The frame map of a VAE of images."""
    return OneToOneMap()


STRIDE_4 = {"vae_scale_factor_temporal": 4}
"""What the frame map reads of a published checkpoint that is not here."""

ONE_MODEL: dict[str, Any] = {"denoisers": {"transformer": None}, "expert_of": None}
"""What takes the experts from a family that is derived from Wan's."""

POOLED_TEXTS = {
    "encoder_hidden_states": _EMBEDS,
    "pooled_projections": "pooled_prompt_embeds",
}
MASKED_TEXTS: dict[str, Any] = {
    "texts": {
        "encoder_hidden_states": _EMBEDS,
        "encoder_attention_mask": "prompt_attention_mask",
    },
    "encoded": (_EMBEDS, "prompt_attention_mask", None, None),
}
"""The texts of a family whose denoiser gets their mask too."""


@dataclass(frozen=True)
class Family:
    """A declaration: all that guidance must know of a pipeline class; defaults are Wan's.

    Denoiser arguments that lie in a dict are named with a dot: `added_cond_kwargs.text_embeds`; a
    dict or list stands for all in it. A tensor that no field names is refused.

    Args:
        name: short name, as printed by `vidcfg families`.
        pipelines: names of the pipeline classes it covers.
        module: Python module that has these classes.
        layout: axes of the latents that the denoiser sees (vidcfg.guidance.layout).
        frame_map: pipeline -> FrameMap of its VAE.
        checkpoints: pattern of a repository's name (fnmatch) -> pipeline class that is published
            there, and the attributes of it that `frame_map` reads: a dry run needs no download.
        texts: denoiser argument -> text input it takes, in the pipeline's own words; what the
            negative side replaces. The user passes them to `guide` as `negative_<text input>`.
            Rows may be repeated per frame, as AnimateDiff does.
        encoded: the text inputs that `encode_prompt` returns, in its order (None: not for us).
        encodes_beside_prompt: whether a text is encoded as the negative one of the call's prompts,
            which it then has the length of; `encoded` names its place.
        own_guidance: arguments of the pipeline call that switch its own guidance -> off value.
        denoisers: attribute of each denoiser -> expert name (None where there is one model).
        per_sample: further denoiser arguments with one row per sample, or several that stand
            together; all branches see the same.
        constants: denoiser arguments that are the same for all samples and branches.
        hidden: denoiser argument that holds the noisy latents, first in its channels.
        timestep: denoiser argument that holds the timestep, which tells the step of a call.
        model_timesteps: (timesteps of the scheduler, that scheduler) -> what the pipeline makes of
            them for the model.
        stock_passes: "sequential" (one call per branch, cond first) or "batched" (one call,
            [uncond, cond]), as the stock pipeline does.
        combines_in_float32: whether the stock pipeline combines in float32 or in its model dtype.
        rescale_space: in what the stock pipeline rescales, "prediction" or "x0".
        prediction: kind of the prediction, or None to read it from the scheduler.
        latent_frames: denoiser arguments -> latent frames, where the tensor does not tell.
        frame_levels: noise levels by frame (diffusion forcing); each has the strength of its step.
        length_argument: pipeline argument that holds the pixel frames, where latent frames do not
            tell them.
        others: "before" or "after": where latent frames beyond those of `length_argument` stand,
            which never become pixels (reference images, conditions); None where there are none.
        part: (pipeline, its call, number of the loop) -> pixel frames of the video, and which of
            them the latents of this loop make; for a video that is made in several loops.
        expert_of: (pipeline, timestep) -> expert name, for pipelines with several denoisers.
        unconditional: denoiser arguments -> the ones that a branch with a negative or empty text
            sees instead, beside `texts`; models without a text have nothing else.
        finish_texts: (pipeline, text inputs, the texts or None) -> text inputs as the denoiser
            takes them, where `encode_prompt` is not the last word.
        from_texts: denoiser argument without rows -> what it is, from the arguments of a branch:
            positions that depend on the length of its text.
        learns_variance: whether the second half of twice as many channels is a variance, which
            the pipeline drops and no rule may read.
        has_levels: whether the sigmas of the scheduler are the noise levels of what the denoiser
            sees; without it what works on x0, or goes by sigma, is refused.
        image_prompt: the image prompts that the denoiser takes beside its texts.
        control: pipeline attribute that holds a ControlNet, which runs anew in every branch. Its
            arguments are declared as those of the denoiser, below this name; its residuals are the
            ones that a UNet takes.
        second_stream: a further output with a scale of its own.
        embedded: denoiser argument that holds the scale of a guidance-distilled model, and the
            number that a scale is multiplied by in it.
        embeds_scale: pipeline -> whether its guidance_scale is an input of the model, as of an
            LCM-distilled UNet, and no guidance: it is then the user's.
        guider: pipeline attribute that holds a diffusers guider, switched off while we guide.
        guiders: components of a modular pipeline that hold its guiders, one for each denoiser;
            guidance takes their place, and sees the predictions and nothing else.
        blocks: where the denoiser keeps its transformer blocks, for rules that perturb them.
        adapter: a part that makes such a pipeline of another checkpoint.
        refusal: (pipeline, arguments of its call) -> why it cannot be guided so, or None.
        fps_argument: pipeline argument that holds the frame rate, where there is one.
        fps_is_whole: whether that argument is a whole number.
        size_multiple: height and width that the pipeline makes are multiples of it.
        decodes_together: whether frames of different samples are decoded in one call.
        frame_rule: the frame map in words, for the table of families.
        tested: what tests show of a uniform scale against the stock pipeline: "exact" (bit for
            bit), "close" (to float32 rounding) or "no".
        is_image: one frame; settings along frames have nothing to act on.
        default_scale, usual_range: what people use; a scale outside is a note, not an error.
    """

    name: str
    pipelines: tuple[str, ...]
    module: str = "diffusers"
    layout: str = "BCFHW"
    frame_map: Callable[[Any], FrameMap] = _causal
    checkpoints: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=lambda: {"encoder_hidden_states": _EMBEDS})
    encoded: tuple[str | None, ...] = (_EMBEDS, None)
    encodes_beside_prompt: bool = False
    own_guidance: Mapping[str, Any] = field(default_factory=lambda: {"guidance_scale": 1.0})
    denoisers: Mapping[str, str | None] = field(default_factory=lambda: {"transformer": None})
    per_sample: tuple[str, ...] = ("timestep",)
    constants: tuple[str, ...] = ("image_rotary_emb", "img_ids", "txt_ids")
    hidden: str = "hidden_states"
    timestep: str = "timestep"
    model_timesteps: Callable[[Tensor, Any], Tensor] = lambda timesteps, scheduler: timesteps
    stock_passes: str = "sequential"
    combines_in_float32: bool = False
    rescale_space: str = "prediction"
    prediction: str | None = "flow"
    latent_frames: Callable[[Mapping[str, Any]], int] | None = None
    frame_levels: FrameLevels | None = None
    length_argument: str | None = None
    others: str | None = None
    part: Callable[[Any, Mapping[str, Any], int], tuple[int, Any]] | None = None
    expert_of: Callable[[Any, float], str | None] | None = None
    unconditional: Callable[[Mapping[str, Any]], dict[str, Tensor]] | None = None
    finish_texts: Callable[[Any, dict[str, Tensor], list[str] | None], dict] | None = None
    from_texts: Mapping[str, Callable[[Mapping[str, Any]], Any]] = field(default_factory=dict)
    learns_variance: bool = False
    has_levels: bool = True
    image_prompt: ImagePrompt | None = None
    control: str | None = None
    second_stream: SecondStream | None = None
    embedded: tuple[str, float] | None = None
    embeds_scale: Callable[[Any], bool] | None = None
    guider: str | None = None
    guiders: tuple[str, ...] = ()
    blocks: Blocks | None = None
    adapter: Adapter | None = None
    refusal: Callable[[Any, Mapping[str, Any]], str | None] | None = None
    fps_argument: str | None = None
    fps_is_whole: bool = False
    size_multiple: int = 1
    decodes_together: bool = False
    frame_rule: str = ""
    tested: str = "no"
    is_image: bool = False
    default_scale: float = 5.0
    usual_range: tuple[float, float] = (3.0, 7.0)

    @property
    def frame_layout(self) -> FrameLayout:
        return FrameLayout(self.layout)

    @property
    def channel_axis(self) -> int:
        return 2 if self.layout == "tokens" else self.layout.index("C")

    def map_of(self, pipe: Any, call: Mapping[str, Any], num_frames: int) -> FrameMap:
        """The frame map of a pipeline call whose denoiser sees `num_frames` latent frames.

        Raises:
            ValueError: if the call asks for more frames than that.
        """
        video = self.frame_map(pipe)
        if self.others is None:
            return video
        asked = call[self.length_argument]
        count = num_frames - video.num_latents(asked)
        if count < 0:
            raise ValueError(
                f"this call has {self.length_argument}={asked}, but latents of {num_frames} "
                f"frames, too few for it. Use {video.num_pixels(num_frames)}."
            )
        return BesideMap(video, **{self.others: count})

    def of(self, pipe: Any) -> "Family":
        """This family, for a pipeline whose guidance scale may be an input of its model."""
        if self.embeds_scale is None or not self.embeds_scale(pipe):
            return self
        own = {name: v for name, v in self.own_guidance.items() if name != "guidance_scale"}
        return replace(self, own_guidance=own)

    def off(self, accepted: Mapping[str, Parameter]) -> dict[str, Any]:
        """`own_guidance` of a call with these parameters; what has no default follows others."""
        return {
            name: value
            for name, value in self.own_guidance.items()
            if name in accepted and (value is None or accepted[name].default is not None)
        }

    def models_of(self, pipe: Any) -> dict[str, Any]:
        """The denoisers that a pipeline has, by attribute, as they are without compilation."""
        found = {name: getattr(pipe, name, None) for name in self.denoisers}
        return {name: uncompiled(held) for name, held in found.items() if held is not None}

    def parameter_of(self, pipe: Any) -> Tensor:
        """A parameter of its denoisers, which tells their dtype and device."""
        return next(p for model in self.models_of(pipe).values() for p in model.parameters())


def uncompiled(held: Any) -> Any:
    """The model itself where a pipeline holds what `torch.compile(model)` made of it."""
    return getattr(held, "_orig_mod", held)


def modular(family: Family, *pipelines: str, **changes: Any) -> Family:
    """`family` for pipelines that are made of blocks, which call the same denoiser."""
    own = {"guider": None, "guiders": ("guider",), "own_guidance": {}} | changes
    return replace(family, name=f"{family.name}_modular", pipelines=pipelines, **own)
