"""Video pipelines of diffusers 0.42 that cannot be guided, and why. No family by itself."""

_CHUNKS = "its frames come out of several denoising loops, and no declaration says which of which"
_REFERENCE = (
    "it puts tokens of a reference video, which may be smaller, behind those of the video, and "
    "which of them are frames cannot be told"
)
_SIZES = "it makes each chunk at several sizes, in loops of their own"
_DISTILLED = "it has no guider: guidance is distilled into its weights"
_FOUR_PASSES = (
    "its guiders combine four passes of picture and sound in x0, and ours sees two passes of one"
)
_SEGMENTS = (
    "its loop over segments hands its guider latents without rows, and no declaration says which "
    "frames each has"
)
_PACKED = "its latents lie in lists of packed tokens of several kinds"
_NO_GUIDANCE = "it has no guidance of its own: one pass of another kind over finished latents"
_IMAGE = "it makes an image"

REFUSED: dict[str, str] = {
    "AnyFlowFARPipeline": _CHUNKS,
    "Cosmos2TextToImagePipeline": _IMAGE,
    "Cosmos2_5_TransferPipeline": _CHUNKS,
    "Cosmos3DistilledModularPipeline": _DISTILLED,
    "Cosmos3OmniModularPipeline": _PACKED,
    "Cosmos3OmniPipeline": _PACKED,
    "CosmosVideoToWorldPipeline": (
        "it draws another noise for the condition frames of each pass, so that one denoiser call "
        "does not hold what the other pass sees"
    ),
    "EasyAnimateControlPipeline": (
        "its own call fails in diffusers 0.42.1 (encode_prompt takes no text_encoder_index)"
    ),
    "HeliosPyramidDistilledModularPipeline": _SIZES,
    "HeliosPyramidModularPipeline": _SIZES,
    "HeliosPyramidPipeline": _SIZES,
    "JoyImageEditPipeline": _IMAGE,
    "Kandinsky6SRPipeline": _NO_GUIDANCE,
    "Kandinsky6TI2VAPipeline": "it guides picture and sound by one scale, and no test covers it",
    "LTX25ModularPipeline": _FOUR_PASSES,
    "LTX2DFRPipeline": _REFERENCE,
    "LTX2DFRTemporalRefinePipeline": _REFERENCE,
    "LTX2HDRPipeline": _REFERENCE,
    "LTX2InContextPipeline": _REFERENCE,
    "LTX2LatentUpsamplePipeline": _NO_GUIDANCE,
    "LTX2ModularPipeline": _FOUR_PASSES,
    "LTX2VideoDiffusionDecodePipeline": _NO_GUIDANCE,
    "LTXI2VLongMultiPromptPipeline": _CHUNKS,
    "LTXLatentUpsamplePipeline": _NO_GUIDANCE,
    "MiniMaxH3ModularPipeline": _DISTILLED,
    "SanaWMPipeline": "its camera paths are arguments without rows that no declaration names",
    "TextToVideoZeroPipeline": "it runs its first frame through several loops of its own",
    "TextToVideoZeroSDXLPipeline": "it runs its first frame through several loops of its own",
    "WanAnimate2DistilledModularPipeline": _SEGMENTS,
    "WanAnimate2ModularPipeline": _SEGMENTS,
}
"""Pipeline class -> the end of a sentence that says why."""
