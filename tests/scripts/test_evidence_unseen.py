"""Which prompts of the evidence the training never had, and alignment on them."""

import numpy as np
from evidence.cells import METRICS, Made, load_sweeps, write_block
from evidence.unseen import training_data, training_texts, unseen_rows
from train_mini.data import sample_clip

from vidcfg.mini.shapes import ATTRIBUTES, caption


def test_prompts_that_the_training_showed_or_told_are_left_out(tmp_path):
    # What every clip of the training shows and tells, in its order.
    first, second = (data.model_copy(update={"num_clips": 3}) for data in training_data())
    assert (first.seed, second.seed) == (0, 1)
    for data in (first, second):
        clips = [sample_clip((data.seed, i), data) for i in range(3)]
        wanted = [text for clip in clips for text in (caption(clip.scene), clip.caption)]
        assert list(training_texts(data)) == wanted
    # The mean of the others.
    (work,) = load_sweeps(["scale"], 4)[:1]
    values = {name: np.arange(4.0) / 10 for name in METRICS}
    block = Made(values, {name: np.full(4, np.nan) for name in ATTRIBUTES}, np.zeros((4, 3)), 12.0)
    write_block(tmp_path, work, 0, block)
    (row,) = unseen_rows([work], tmp_path, {work.prompts[1]})
    error = 1.96 * np.std([0.0, 0.2, 0.3], ddof=1) / 3**0.5
    assert row == ["scale", work.label, "3 of 4", f"{0.5 / 3:.3f} ± {error:.3f}"]
