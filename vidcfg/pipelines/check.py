"""`vidcfg.check_pipeline`: whether a declaration says what the pipeline does.

Where its frames lie, and how many there are, is read from two calls of different length.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidcfg.guidance.setting import Guidance
from vidcfg.guidance.trace import Trace
from vidcfg.pipelines.arguments import call_signature, roles_of, tensors_of
from vidcfg.pipelines.changes.layers import swapped
from vidcfg.pipelines.comparison import Comparison, FrameScale, difference, frame_axis
from vidcfg.pipelines.families import Family, family_of

PROMPTS = ["a red ball rolls to the left", "a blue cube falls"]
LENGTHS = ("num_frames", "video_length", "frames")
"""What pipelines call the number of pixel frames."""


@dataclass(frozen=True)
class CheckLine:
    """What was checked, whether it passed (None: it could not be checked), and what was found."""

    name: str
    passed: bool | None
    text: str

    def __str__(self) -> str:
        mark = {True: "ok", False: "FAIL", None: "?"}[self.passed]
        return f"{mark:<5} {self.name}: {self.text}"


def check_pipeline(pipe: Any, **call: Any) -> list[CheckLine]:
    """Run a pipeline with its own guidance and with vidcfg's, and tell where they differ.

        for line in vidcfg.check_pipeline(pipe, prompt=["a kite", "a dog"], num_frames=9):
            print(line)

    Args:
        pipe: a pipeline whose family is declared, here or by `register_family`.
        **call: arguments of its call; the negative side, too. What is left out is small: two
            prompts, three steps, three latent frames of 64 x 128 pixels, latents as output.

    Returns:
        One line for each tensor of a denoiser call (the field that declares it, or what to write),
        for a uniform scale, for a random surface [steps, frames], for the plan against what ran,
        and for the state of the pipeline afterwards. "exact" is bit for bit, "close" is rounding.

    Raises:
        ValueError: for a pipeline that no family covers, or a call that it does not take.
    """
    family = family_of(pipe)
    models = family.models_of(pipe)
    if family.guiders:
        raise ValueError(
            f"the blocks of a {type(pipe).__name__} call its model themselves, so that there is "
            f"no call of it to check. Guide it with vidcfg.guide, and compare the latents."
        )
    if not models:
        raise ValueError(f"this pipeline has no {', '.join(family.denoisers)}: declare denoisers.")
    call = _with_defaults(pipe, family, call)
    sides = _comparison(pipe, family, call)
    try:
        check = _Check(pipe, family, call, sides)
    except Exception as error:
        raise ValueError(
            f"the {type(pipe).__name__} itself fails with these arguments: "
            f"{type(error).__name__}: {error} Pass arguments that it takes."
        ) from error
    was = type(pipe), [vars(module).copy() for module in models.values()]
    roles = check.roles()
    lines = [_line(f"tensor {path}", check.tensor, path, *found) for path, found in roles.items()]
    names = ("uniform scale", "random surface", "plan")
    lines += [_line(name, getattr(check, name.replace(" ", "_"))) for name in names]
    is_same = was == (type(pipe), [vars(module) for module in models.values()])
    return [*lines, _line("afterwards", check.afterwards, is_same)]


def _line(name: str, look: Callable[..., tuple[bool | None, str]], *given: Any) -> CheckLine:
    try:
        return CheckLine(name, *look(*given))
    except Exception as error:  # a wrong declaration may fail anywhere in the model
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        return CheckLine(name, False, f"{kind}{error}")


class _Check:
    """What is found out about one pipeline, line by line."""

    def __init__(self, pipe: Any, family: Family, call: dict[str, Any], sides: Comparison):
        self.pipe, self.family, self.call, self.sides = pipe, family, call, sides
        self.scale = max(family.default_scale, 2.0)
        self.less = 0
        """How much lower the pipeline's own scale is, where it guides from cond."""
        self.traces: list[Trace] = []
        # The pipeline alone.
        self.one = sides.first_calls(sides.unguided, 1)[0]
        self.pair = sides.first_calls(lambda: sides.stock(self.scale), 2)
        self.stock = sides.stock(self.scale)

    def roles(self) -> dict[str, tuple[str | None, Any]]:
        """Every tensor of a denoiser call, with the field that declares it."""
        for field in ("hidden", "timestep"):
            if (name := getattr(self.family, field)) not in self.one:
                raise ValueError(
                    f"the family {self.family.name} has {field}={name!r}, but its denoiser gets "
                    f"{', '.join(self.one)}. Write {field}= one of these."
                )
        return roles_of(self.family, self.one)

    def tensor(self, path: str, role: str | None, tensor: Tensor) -> tuple[bool, str]:
        """What declares a tensor, or should: from what the stock pipeline's two passes see."""
        if role:
            return True, f"{list(tensor.shape)}, {role}"
        num_samples, both = len(self.one[self.family.hidden]), self.pair[0]
        if len(both[self.family.hidden]) == 2 * num_samples:
            sides = dict(tensors_of(both))[path].chunk(2)
        else:
            sides = [dict(tensors_of(call)).get(path) for call in self.pair]
        is_same = all(side is not None for side in sides) and np.array_equal(*sides)
        field, why = "constants", "its rows are not those of samples"
        if not is_same:
            field, why = "texts", "the unconditional pass sees another"
        elif len(tensor) % num_samples == 0:
            field, why = "per_sample", f"it has rows for {num_samples} samples"
        declared = getattr(self.family, field)
        if field == "texts":
            free = (n for n in self.family.encoded if n and n not in declared.values())
            declared = dict(declared) | {path: next(free, "its name in the pipeline's call")}
        else:
            declared = (*declared, path)
        return False, f"{list(tensor.shape)} is not declared; {why}. Write {field}={declared}"

    def uniform_scale(self) -> tuple[bool | None, str]:
        ours, trace, _ = self.sides.guided(Guidance(scale=self.scale))
        self.traces.append(trace)
        passed, words = self._verdict(difference(ours, self.stock))
        if not passed:
            lower, told = self._verdict(difference(ours, self.sides.stock(self.scale - 1)))
            if lower:
                self.less = 1
                note = "It guides by cond + scale (cond - uncond): its scale is 1 lower"
                return True, f"{told}. {note}"
            if difference(self.sides.unguided(), self.stock) == 0:
                own = f"its own guidance (own_guidance={self.family.own_guidance})"
                return None, f"cannot be told: {own} changes nothing. Has it none, or another?"
        return passed, words

    def random_surface(self) -> tuple[bool | None, str]:
        axis, seen = self._frame_axis()
        # No two equal frames or steps; one frame has a schedule alone.
        draw, places = np.random.default_rng(0), np.linspace(0, 1, 5)
        scale, frames = (
            {"kind": "knots", "points": np.column_stack([places, draw.uniform(*ends, 5)]).tolist()}
            for ends in ((0.3, self.scale), (0.0, 1.0))
        )
        settings = {} if self.family.is_image else {"frames": frames}
        guidance = Guidance(scale=scale, passes="sequential", micro_batch=1, **settings)
        ours, trace, rows = self.sides.guided(guidance)
        self.traces.append(trace)
        scale = FrameScale(lambda n: rows[n], axis) - self.less
        stock = self.sides.stock(scale)
        if len(scale.used) != len(rows):
            return None, (
                f"cannot be told: it uses its scale {len(scale.used)} times in {len(rows)} steps, "
                f"and not as uncond + scale * (cond - uncond)"
            )
        passed, words = self._verdict(difference(ours, stock))
        return passed, f"{words} ({len(rows)} steps, {len(rows[0])} latent frames, {seen})"

    def plan(self) -> tuple[bool, str]:
        for trace in self.traces:
            planned, ran = trace.planned.evaluations, trace.evaluations
            if planned != ran:
                return False, f"planned {planned}, ran {ran} model evaluations"
        total = sum(sum(trace.evaluations.values()) for trace in self.traces)
        return bool(total), f"{total} model evaluations, as planned" if total else "nothing ran"

    def afterwards(self, is_same: bool) -> tuple[bool, str]:
        if not is_same:
            return False, "its class or the attributes of a denoiser are not as before"
        found = difference(self.sides.stock(self.scale), self.stock)
        return found == 0, f"stock runs: {self._verdict(found)[1]}" if found else "as before"

    def _frame_axis(self) -> tuple[int, str]:
        """The axis of frames in the noisy latents, and how calls of two lengths show it."""
        family, declared, hidden = self.family, frame_axis(self.family.layout), self.family.hidden
        name = length_argument(self.pipe)
        if family.is_image or family.part is not None or name is None:
            return declared, "along the declared axis"
        video, short = family.frame_map(self.pipe), self.call[name]
        longer = filter(video.makes, range(short + 1, short + 200))
        long = next(n for n in longer if video.num_latents(n) > video.num_latents(short))
        counts = [video.num_latents(short), video.num_latents(long)]
        try:
            more = self.sides.first_calls(lambda: self.sides.unguided(**{name: long}), 1)[0]
        except Exception as error:
            return declared, f"its axis not tried: {name}={long} fails: {error}"
        shapes = [list(call[hidden].shape) for call in (self.one, more)]
        told = f"{name}={short} and {long} make {hidden} {shapes[0]} and {shapes[1]}"
        axes = [n for n, (a, b) in enumerate(zip(*shapes, strict=True)) if a != b]
        if axes not in ([], [declared]):
            raise ValueError(
                f"far: {told}, so frames lie on axis {axes[0]}, but the layout {family.layout} "
                f"has them on axis {declared}. Write another layout=."
            )
        count = family.latent_frames or (lambda call: family.frame_layout.num_frames(call[hidden]))
        latents = [count(call) for call in (self.one, more)]
        # Where another argument sets the length, there is one of them.
        others = {got - said for got, said in list(zip(latents, counts))[: 1 + len(axes)]}
        if len(others) > 1 or (others != {0} and family.others is None):
            raise ValueError(
                f"far: {told}: {latents[0]} and {latents[1]} latent frames, but frame_map "
                f"({video.lengths}) says {counts[0]} and {counts[1]}. Write another frame_map=, "
                f"or others= where frames stand beside the video."
            )
        return declared, f"{told}, as declared" if axes else f"{told}: axis as declared"

    def _verdict(self, found: float) -> tuple[bool | None, str]:
        """Whether a difference is float32 rounding; None where coarser numbers may explain it."""
        if found == 0:
            return True, "exact"
        by = f"by {found:.1e} of the largest value"
        if found <= 100 * torch.finfo(torch.float32).eps:
            return True, f"close: rounding, {by}"
        dtype = self.family.parameter_of(self.pipe).dtype
        if dtype in (torch.float16, torch.bfloat16) and found <= 100 * torch.finfo(dtype).eps:
            return None, f"rounding or not, load it in float32 to tell: {by}"
        return False, f"far: {by}"


def length_argument(pipe: Any) -> str | None:
    """The argument of the pipeline's call that holds its pixel frames."""
    accepted = call_signature(type(pipe)).parameters
    known = (family_of(pipe).length_argument, *LENGTHS)
    return next((name for name in known if name in accepted), None)


def _with_defaults(pipe: Any, family: Family, given: dict[str, Any]) -> dict[str, Any]:
    """`given` with small values for what it leaves out, of what the pipeline takes."""
    accepted = call_signature(type(pipe)).parameters
    unknown = [name for name in given if name not in accepted]
    if unknown:
        raise ValueError(
            f"a {type(pipe).__name__} takes no {', '.join(unknown)}. It takes "
            f"{', '.join(name for name in accepted if name != 'self')}."
        )
    size = max(32, min(64, 8 * family.size_multiple))  # a UNet halves it often
    known = {"height": size, "width": 2 * size, "num_inference_steps": 3, "output_type": "latent"}
    if not family.is_image and (length := length_argument(pipe)) is not None:
        lengths = filter((video := family.frame_map(pipe)).makes, range(1, 200))
        known[length] = next(n for n in lengths if video.num_latents(n) > 2)
    if not any(name.startswith("prompt") for name in given):
        known["prompt"] = PROMPTS
    prompts = (known | given).get("prompt")
    if prompts is not None and not any(name.startswith("negative_") for name in given):
        known["negative_prompt"] = "" if isinstance(prompts, str) else [""] * len(prompts)
    return {name: value for name, value in known.items() if name in accepted} | given


def _comparison(pipe: Any, family: Family, call: dict[str, Any]) -> Comparison:
    """How the pipeline makes something of these arguments, by itself and without guidance."""
    accepted = call_signature(type(pipe)).parameters
    wanted = {"negative_prompt", *(f"negative_{name}" for name in family.encoded if name)}
    told = {n: v for n, v in call.items() if n.startswith("negative_") and v is not None}
    negative = {name: value for name, value in told.items() if name in wanted}
    kept = family.image_prompt.negative if family.image_prompt else ()
    ours = {name: v for name, v in call.items() if name not in told or name in kept}
    off = family.off(accepted)
    scales = [name for name in off if name.endswith("guidance_scale")] or list(off)[:1]

    def run(arguments: dict[str, Any]) -> Any:
        if "generator" in accepted:
            arguments = {"generator": torch.Generator().manual_seed(0)} | arguments
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made = pipe(**arguments)
        return made if isinstance(made, Tensor) else made[0]

    def stock(scale: float) -> Any:
        if family.guider is None:
            return run(call | off | dict.fromkeys(scales, scale))
        from diffusers.guiders import ClassifierFreeGuidance

        with swapped(pipe, family.guider, ClassifierFreeGuidance(guidance_scale=scale)):
            return run(call)

    return Comparison(pipe, stock, lambda **more: run(ours | off | more), negative)
