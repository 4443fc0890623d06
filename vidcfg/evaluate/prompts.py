"""Which prompt a video is of where no record beside it tells: what its name says."""

import re

NUMBERED = (
    re.compile(r"(?P<prompt>.+)-(?P<number>\d{1,10})"),  # VBench: {prompt}-{index}
    re.compile(r"(?P<prompt>.+)_(?P<number>\d{5})_?"),  # ComfyUI: {prefix}_{counter:05}_
    re.compile(r"(?P<prompt>.+)-s(?P<number>\d{1,10})"),  # vidcfg render: {prompt}-s{seed}
)
"""How tools number several videos of one prompt, at the end of a file's name."""


def prompt_and_number(stem: str) -> tuple[str, int | None]:
    """The prompt and the number of a video by its name without ending.

    `a cat in a park-3` is number 3 of `a cat in a park`, `fox_00012_` number 12 of `fox`; any
    other name is a prompt of its own, without a number. Where numbered names are no seeds of one
    prompt, taking them for such makes intervals wider and tests weaker, never surer.
    """
    for form in NUMBERED:
        if found := form.fullmatch(stem):
            return found["prompt"], int(found["number"])
    return stem, None
