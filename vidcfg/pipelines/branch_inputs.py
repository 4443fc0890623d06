"""What every branch of a run sees: the text arguments of the denoiser, row by row."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vidcfg.guidance.plan import SampleRows
from vidcfg.pipelines.arguments import grouped, tensor_at
from vidcfg.pipelines.families import Family
from vidcfg.pipelines.texts import BranchTexts, as_rows, encode, rows_per_prompt


def cond_texts(family: Family, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """The text arguments of a call, one entry per sample."""
    num_samples = arguments[family.hidden].shape[0]
    found = {name: tensor_at(arguments, name) for name in family.texts}
    return {name: grouped(t, num_samples) for name, t in found.items() if t is not None}


def shared_inputs(family: Family, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """The arguments with one row per sample that all branches see; the noisy latents first."""
    found = {name: tensor_at(arguments, name) for name in (family.hidden, *family.per_sample)}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def branch_texts(
    pipe: Any,
    family: Family,
    texts: BranchTexts,
    samples: SampleRows,
    *,
    call: Mapping[str, Any],
    arguments: Mapping[str, Any],
) -> dict[str, dict[str, Tensor]]:
    """The text arguments of every branch but `cond` that the run needs on some step.

    Raises:
        ValueError: if a text cannot be encoded, or does not fit the samples.
    """
    sources = needed_sources(samples)
    if family.unconditional is not None:
        return image_branches(family, sources, arguments)
    cond = cond_texts(family, arguments)
    num_rows, repeats = arguments[family.hidden].shape[0], rows_per_prompt(call)
    inputs: dict[str, dict[str, Tensor]] = {}
    by_branch = {}
    for branch, source in sources.items():
        if source not in inputs:
            words = None if source in texts.inputs else texts.text(source, num_rows // repeats)
            given = texts.inputs[source] if words is None else encode(pipe, family, words, call)
            finish = family.finish_texts
            inputs[source] = given if finish is None else finish(pipe, dict(given), words)
        by_branch[branch] = {
            argument: as_rows(inputs[source][name], cond[argument], name, repeats=repeats)
            for argument, name in family.texts.items()
            if argument in cond
        }
    return by_branch


def image_branches(
    family: Family, sources: Mapping[str, str], arguments: Mapping[str, Any]
) -> dict[str, dict[str, Tensor]]:
    """The arguments of the branches of a model without a text.

    Raises:
        ValueError: for a rule whose branch sees a prompt of its own.
    """
    for branch, source in sources.items():
        if source not in ("negative", "empty"):
            raise ValueError(
                f"the {branch} branch needs a prompt, but a {family.pipelines[0]} is conditioned "
                f"on an image. Use guidance.method: cfg."
            )
    return {branch: family.unconditional(arguments) for branch in sources}


def needed_sources(samples: SampleRows) -> dict[str, str]:
    """Branch -> text source, for the branches that some sample needs on some step.

    Branches that see what `cond` sees are left out.
    """
    sources: dict[str, str] = {}
    for b, rule in enumerate(samples.rules):
        for k in range(samples.num_steps):
            for branch in samples.branches(b, k):
                source = "cond" if branch == "cond" else rule.method.sources()[branch]
                if source != "cond":
                    sources[branch] = _one_source(sources, branch, source)
    return sources


def _one_source(known: Mapping[str, str], branch: str, source: str) -> str:
    """`source`, unless another sample's rule reads the branch from another text.

    Raises:
        ValueError: in that case; one batch has one text per branch and sample.
    """
    if known.get(branch, source) != source:
        raise ValueError(
            f"the samples of this batch use rules whose {branch} branch sees different texts "
            f"({known[branch]} and {source} prompt). Render them in two calls."
        )
    return source
