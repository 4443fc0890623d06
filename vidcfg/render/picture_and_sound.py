"""What is written beside a video: the picture of a clip of one frame, and the sound."""

import io
import wave

import numpy as np


def as_png(frame_HWC: np.ndarray) -> bytes:
    """One uint8 frame as a PNG file, every pixel kept."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(frame_HWC).save(buffer, format="png")
    return buffer.getvalue()


def as_wav(samples: np.ndarray, rate: int) -> bytes:
    """Float samples [samples, channels] in -1..1 (louder ones are clipped) as a 16-bit WAV file.

    Raises:
        ValueError: if a sample is NaN or Inf.
    """
    if not np.isfinite(samples).all():
        raise ValueError("the audio of the pipeline holds NaN or Inf. Use model.dtype: float32.")
    levels = np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(levels.tobytes())
    return buffer.getvalue()
