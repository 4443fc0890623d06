"""Words that other projects use, and what they are called here."""


def _by_word(words_of: dict[str, str]) -> dict[str, str]:
    return {word: ours for ours, words in words_of.items() for word in words.split()}


KEYS = _by_word(
    {
        "guidance.scale": "guidance_scale cfg cfg_scale true_cfg_scale text_guidance_scale "
        "sample_guide_scale guide_scale guidance_scale_2 w guidance_interval cfg_interval "
        "schedule",
        "guidance.rescale": "guidance_rescale cfg_rescale rescale_cfg phi",
        "guidance.threshold": "dynamic_threshold dynamic_thresholding thresholding "
        "dynamic_thresholding_ratio",
        "guidance.frames": "frame_weights keyframes",
        "guidance.precision": "precision",
        "guidance.micro_batch": "batch_size",
        "sampling.num_steps": "num_inference_steps inference_steps sampling_steps sample_steps "
        "steps",
        "sampling.shift": "flow_shift sample_shift",
        "sampling.scheduler": "sampler sample_solver solver",
        "prompts": "prompt caption",
        "prompts.0.negative": "negative_prompt negative_prompts sample_neg_prompt",
        "prompts.0.image": "image_path",
        "seeds": "seed base_seed generator",
        "video.fps": "frame_rate framerate",
        "video.num_frames": "frame_num video_length num_video_frames n_frames length",
        "video.height": "resolution size",
        "model.dtype": "torch_dtype dtype variant",
        "model.device": "device",
        "model.checkpoint": "checkpoint pretrained_model_name_or_path model_id model_path ckpt "
        "ckpt_dir repo repo_id",
        "model.offload": "offload enable_model_cpu_offload offload_model",
        "model.attention": "attention attention_backend",
        "model.compile": "compile torch_compile",
        "model.vae_tiling": "enable_vae_tiling",
        "output.dir": "output_dir out_dir save_path save_dir output_path",
        "output.video": "output_type codec format",
        "output.enlarge": "upscale zoom",
        "schema": "version",
    }
)
"""A key of another project -> the path of ours. It counts only where the model has that path."""

VALUES = _by_word(
    {
        "float32": "fp32 float",
        "float16": "fp16 half",
        "bfloat16": "bf16",
        "cuda": "gpu",
        "flow_euler": "euler flow_match_euler FlowMatchEulerDiscreteScheduler",
        "unipc": "UniPCMultistepScheduler",
        "ddim": "DDIMScheduler",
        "dpm++": "dpm dpmpp dpm++2m dpmsolver++ DPMSolverMultistepScheduler",
        "h264": "mp4 x264 libx264",
        "h264_lossless": "lossless",
        "keyframes": "keyframe",
        "decay": "temporal_decay",
        "uniform": "flat",
        "cfg": "classifier_free classifier_free_guidance",
        "perp_neg": "perpneg perp-neg",
        "constant": "constant_scale",
        "cosine": "cos",
        "knots": "piecewise",
        "first": "start begin",
        "last": "end",
        "middle": "center centre mid",
    }
)
"""A value of another project -> ours. It counts only where ours is allowed."""
