"""What a denoiser predicts, and how one kind becomes another. Written once, as coefficients.

A noisy sample is x_t = alpha x0 + sigma eps, and every kind of prediction is a weighted sum of the
same two:

    epsilon        p = eps
    v_prediction   p = alpha eps - sigma x0
    flow           p = eps - x0
    flow_reversed  p = x0 - eps
    sample         p = x0

So one kind follows from another and x_t by q = a x_t + b p, where a and b depend only on the noise
level (alpha, sigma). `flow` is Wan, LTX and HunyuanVideo, `flow_reversed` Mochi, `v_prediction`
CogVideoX and SVD. Levels: flow matching alpha = 1 - sigma; variance preserving alpha^2 +
sigma^2 = 1, also for EDM-style schedulers that divide the model input by sqrt(sigma^2 + 1): there
alpha = 1 / sqrt(sigma^2 + 1) and sigma is divided likewise. Works on floats, numpy arrays and
tensors, whichever come in; imports none of them.
"""

from typing import Any

KINDS = ("epsilon", "v_prediction", "flow", "flow_reversed", "sample")


def coefficients(from_kind: str, to_kind: str, alpha: Any, sigma: Any) -> tuple[Any, Any]:
    """(a, b) with q = a x_t + b p, for p of `from_kind` and q of `to_kind`.

    With p = p0 x0 + p1 eps and q = q0 x0 + q1 eps:

        D = alpha p1 - sigma p0,   a = (q0 p1 - q1 p0) / D,   b = (alpha q1 - sigma q0) / D

    The same kind gives (0, 1). `alpha` and `sigma` are floats, or arrays that broadcast against
    x_t. To `sample`, x0 = a x_t + b p:

        epsilon       1 / alpha, -sigma / alpha
        v_prediction  alpha / n, -sigma / n     n = alpha^2 + sigma^2 (1 when variance preserving)
        flow          1 / m, -sigma / m         m = alpha + sigma (1 in flow matching)

    Raises:
        ValueError: if a kind is unknown, or at D = 0, where x_t and p do not determine q: epsilon
            says nothing of x0 at alpha = 0 (pure noise), sample says nothing of eps at sigma = 0
            (no noise).

    Source: the three parameterisations of Salimans & Ho 2022, arXiv:2202.00512; flow matching of
    Lipman et al. 2022, arXiv:2210.02747.
    """
    p0, p1 = _parts(from_kind, alpha, sigma)
    q0, q1 = _parts(to_kind, alpha, sigma)
    if from_kind == to_kind:
        return 0.0, 1.0
    determinant = alpha * p1 - sigma * p0
    is_zero = determinant == 0
    if is_zero.any() if hasattr(is_zero, "any") else is_zero:
        reason = {
            "epsilon": "alpha is 0 (pure noise), where x_t is noise alone and x0 is unknown",
            "sample": "sigma is 0 (no noise), where x_t is x0 alone and the noise is unknown",
        }.get(from_kind, "alpha and sigma are both 0, or of opposite sign")
        raise ValueError(
            f"cannot turn {from_kind} into {to_kind}: {reason}. Leave this step out, or convert "
            f"at a level where alpha and sigma are both above 0."
        )
    return (q0 * p1 - q1 * p0) / determinant, (alpha * q1 - sigma * q0) / determinant


def convert(p: Any, x_t: Any, from_kind: str, to_kind: str, *, alpha: Any, sigma: Any) -> Any:
    """The prediction `p` of `from_kind` as `to_kind`; `p` itself, untouched, for the same kind.

    `x_t` is the noisy sample that the model saw, of the shape of `p`. Raises ValueError as
    `coefficients` does.
    """
    a, b = coefficients(from_kind, to_kind, alpha, sigma)
    return p if from_kind == to_kind else a * x_t + b * p


def _parts(kind: str, alpha: Any, sigma: Any) -> tuple[Any, Any]:
    """(p0, p1) with p = p0 x0 + p1 eps."""
    table = {
        "epsilon": (0.0, 1.0),
        "v_prediction": (-sigma, alpha),
        "flow": (-1.0, 1.0),
        "flow_reversed": (1.0, -1.0),
        "sample": (1.0, 0.0),
    }
    if kind not in table:
        raise ValueError(f"prediction kind is {kind!r}. Use one of: {', '.join(table)}.")
    return table[kind]
