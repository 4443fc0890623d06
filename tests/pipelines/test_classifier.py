"""Classifier guidance: its shift by hand, what is refused, a head that steers the mini model."""

import numpy as np
import pytest
import torch
from guided_runs import frame_of, record_inside
from noisy_head import fit_noisy_head
from tiny_pipelines import BUILDERS, generators

import vidcfg
from vidcfg.mini.shapes import ATTRIBUTES, Scene, draw, vary
from vidcfg.pipelines.changes.classifier import classifier_shift

RAMP = {"kind": "ramp", "first": 1.0, "last": 0.0}


def towards(target: float):
    """log p with gradient 0.3 (target - x), different for every sample."""

    def log_prob(x, sigma, step):
        return -0.15 * ((x - target - torch.arange(len(x)).view(-1, 1, 1, 1, 1)) ** 2).sum(
            dim=(1, 2, 3, 4)
        )

    return log_prob


@pytest.mark.parametrize(
    ("kind", "alpha", "sigma", "factor"),
    [
        ("flow", 0.6, 0.4, 1 / 0.6),
        ("flow_reversed", 0.6, 0.4, -1 / 0.6),
        ("epsilon", 0.8, 0.6, 1.0),
        ("v_prediction", 0.8, 0.6, 1 / 0.8),
        ("sample", 0.8, 0.6, -0.6 / 0.8),
    ],
)
def test_shift_is_minus_sigma_times_the_gradient_in_eps(kind, alpha, sigma, factor):
    x = torch.randn(2, 3, 5, 4, 6)
    ours = classifier_shift(towards(2.0), x, level=(alpha, sigma), kind=kind, step=0)
    place = torch.arange(2).view(-1, 1, 1, 1, 1)
    gradient = 0.3 * (2.0 + place - x.double())
    torch.testing.assert_close(ours.double(), -sigma * factor * gradient, rtol=0, atol=1e-5)


def test_pure_noise_tells_nothing():
    x = torch.randn(2, 3, 5, 4, 6)
    assert not classifier_shift(towards(2.0), x, level=(0.0, 1.0), kind="flow", step=0).any()


@pytest.mark.parametrize(("name", "axis"), [("wan_i2v", 1), ("cogvideox_i2v", 2)])
def test_channels_behind_those_of_a_prediction_get_no_gradient(name, axis):
    tiny, shapes = BUILDERS[name](), []

    def log_prob(x, sigma, step):
        shapes.append(x.shape)
        return towards(2.0)(x, sigma, step)

    guidance = vidcfg.Guidance(scale=3.0, method="classifier")
    with vidcfg.guide(tiny.pipe, guidance, classifier=log_prob):
        tiny.unguided(generator=generators(0, 1))
    config = tiny.pipe.transformer.config
    assert config.in_channels > config.out_channels
    assert {shape[axis] for shape in shapes} == {config.out_channels}


@pytest.mark.parametrize("name", ["wan", "hunyuan_video"])
def test_the_shift_is_added_frame_by_frame_by_strength(name):
    tiny = BUILDERS[name](num_steps=4)
    guidance = vidcfg.Guidance(scale=3.0, method="classifier", frames=RAMP)
    inputs = []
    log_prob = towards(1.0)

    def noted(x, sigma, step):
        inputs.append((x.detach().clone(), sigma, step))
        return log_prob(x, sigma, step)

    with vidcfg.guide(tiny.pipe, guidance, classifier=noted) as trace:
        _, outputs, used = record_inside(tiny, generators(0, 1))
    assert trace.evaluations == {"cond": 8, "classifier": 8} == trace.planned.evaluations
    assert [step for _, _, step in inputs] == [1, 2, 3]  # step 0 is pure noise
    weight_F = trace.surfaces[0].weights_KF[0]
    torch.testing.assert_close(used[0], outputs[0], rtol=0, atol=1e-5)
    for (x, sigma, _), cond, prediction in zip(inputs, outputs[1:], used[1:], strict=True):
        place = torch.arange(2).view(-1, 1, 1, 1, 1)
        shift = -sigma / (1 - sigma) * 0.3 * (1.0 + place - x.double())
        for f, w in enumerate(weight_F):
            c, d, p = (
                frame_of(t, name, f, len(weight_F)).double() for t in (cond, shift, prediction)
            )
            torch.testing.assert_close(p, c + 2.0 * w * d, rtol=0, atol=2e-5)


def test_strength_one_takes_no_gradient():
    tiny = BUILDERS["wan"]()
    plain = tiny.unguided(generator=generators(0, 1))

    def never(x, sigma, step):
        raise AssertionError

    with vidcfg.guide(
        tiny.pipe, vidcfg.Guidance(scale=1.0, method="classifier"), classifier=never
    ) as trace:
        ours = tiny.unguided(generator=generators(0, 1))
    assert torch.equal(ours, plain)
    assert trace.evaluations == {"cond": 6}


@pytest.mark.parametrize(
    ("classifier", "expected"),
    [
        (None, "classifier needs a function"),
        (lambda x, sigma, step: x.sum(), r"returned \(\); return a tensor of shape \(2,\)"),
        (lambda x, sigma, step: torch.zeros(2), "with gradients on"),
        (lambda x, sigma, step: 1.0, "returned float"),
    ],
)
def test_what_is_no_log_probability_is_refused(classifier, expected):
    tiny = BUILDERS["wan"](num_steps=2)
    guidance = vidcfg.Guidance(scale=2.0, method="classifier")
    with (
        vidcfg.guide(tiny.pipe, guidance, classifier=classifier),
        pytest.raises(ValueError, match=expected),
    ):
        tiny.unguided(generator=generators(0, 1))


@pytest.fixture(scope="module")
def mini():
    from vidcfg.mini.pipeline import load_mini

    pipe = load_mini()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def head(mini):
    """Tells backgrounds apart; fitted to sixteen clips of each."""
    rng = np.random.default_rng(0)
    names = ATTRIBUTES["background"]
    clips, labels = [], []
    for k, name in enumerate(names):
        for i in range(16):
            scene = Scene(
                shape=ATTRIBUTES["shape"][i % 4],
                colour=ATTRIBUTES["colour"][i % 6],
                motion=ATTRIBUTES["motion"][i % 5],
                background=name,
            )
            clips.append(draw(vary(scene, rng)))
            labels.append(k)
    video = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    with torch.no_grad():
        latents = mini.vae.encode(video).latents
    return fit_noisy_head(latents, torch.tensor(labels), num_classes=len(names)), latents, labels


def test_head_knows_clean_latents_and_nothing_of_noise(head):
    found, latents, labels = head
    assert found.log_probs(latents, 0.0).argmax(1).tolist() == labels
    even = found.log_probs(torch.randn(3, *latents.shape[1:]), 1.0)
    torch.testing.assert_close(even, torch.full_like(even, -np.log(4)), rtol=0, atol=1e-4)


def test_head_paints_the_background_that_the_prompt_leaves_open(mini, head):
    from vidcfg.mini.scorer import load_scorer

    found, _, _ = head
    wanted = torch.tensor([3, 1])  # teal, black
    scorer = load_scorer()

    def backgrounds(scale: float) -> list[int]:
        guidance = vidcfg.Guidance(scale=scale, method="classifier")
        with vidcfg.guide(mini, guidance, classifier=found.log_prob(wanted)):
            video = mini(
                ["a red circle moving left"] * 2,
                num_inference_steps=8,
                generator=generators(0, 1),
                output_type="pt",
            ).frames
        with torch.no_grad():
            seen = scorer.read(scorer.states(video))
        return seen["background"][:, 2].argmax(1).tolist()

    assert backgrounds(1.0) != wanted.tolist()
    assert backgrounds(3.0) == wanted.tolist()
