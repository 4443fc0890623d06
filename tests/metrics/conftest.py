import numpy as np
import pytest


def _texture(height: int, width: int, *, seed: int = 0, sigma: float = 3.0) -> np.ndarray:
    """Smooth random intensities in 0.2..0.8, so that +-0.2 can be added without clipping."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).standard_normal((height, width))
    smooth = gaussian_filter(noise, sigma)
    smooth -= smooth.min()
    return (0.2 + 0.6 * smooth / smooth.max()).astype(np.float32)


def _panning(step: int, *, alternation: float = 0.0, num_frames: int = 16, size: int = 128):
    """A texture moving left by `step` pixels a frame; brightness alternates by +-alternation."""
    wide = _texture(size, size + step * num_frames)
    frames = [
        wide[:, t * step : t * step + size] + np.float32(alternation * (-1) ** t)
        for t in range(num_frames)
    ]
    return np.repeat(np.stack(frames)[:, None], 3, axis=1).astype(np.float32)


def _spatially_constant(values_T: np.ndarray, *, height: int = 5, width: int = 7) -> np.ndarray:
    """Gray frames whose intensity follows the given curve."""
    values = np.asarray(values_T, dtype=np.float32)[:, None, None, None]
    return np.broadcast_to(values, (len(values), 3, height, width)).copy()


@pytest.fixture(scope="session")
def texture():
    return _texture


@pytest.fixture
def panning():
    return _panning


@pytest.fixture
def spatially_constant():
    return _spatially_constant


@pytest.fixture
def sinusoid():
    """x_t = 0.5 + A sin(2 pi f t + phase), constant in space."""

    def make(frequency, *, amplitude=0.1, phase=0.0, num_frames=32):
        t = np.arange(num_frames)
        return _spatially_constant(0.5 + amplitude * np.sin(2 * np.pi * frequency * t + phase))

    return make
