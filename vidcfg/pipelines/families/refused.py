"""Video pipelines of diffusers 0.42 that cannot be guided, and why. No family by itself."""

_CHUNKS = "its frames come out of several denoising loops, and no declaration says which of which"
_REFERENCE = (
    "it puts tokens of a reference video, which may be smaller, behind those of the video, and "
    "which of them are frames cannot be told"
)
_MODULAR = "it is a modular pipeline, whose loop is made of blocks and takes no call as others do"
_NO_GUIDANCE = "it has no guidance of its own: one pass of another kind over finished latents"
_IMAGE = "it makes an image"

REFUSED: dict[str, str] = {
    "AnyFlowFARPipeline": _CHUNKS,
    "Cosmos2TextToImagePipeline": _IMAGE,
    "Cosmos2_5_TransferPipeline": _CHUNKS,
    "Cosmos3DistilledModularPipeline": _MODULAR,
    "Cosmos3OmniModularPipeline": _MODULAR,
    "Cosmos3OmniPipeline": "its latents lie in lists of packed tokens of several kinds",
    "CosmosVideoToWorldPipeline": (
        "it draws another noise for the condition frames of each pass, so that one denoiser call "
        "does not hold what the other pass sees"
    ),
    "EasyAnimateControlPipeline": (
        "its own call fails in diffusers 0.42.1 (encode_prompt takes no text_encoder_index)"
    ),
    "HeliosModularPipeline": _MODULAR,
    "HeliosPyramidDistilledModularPipeline": _MODULAR,
    "HeliosPyramidModularPipeline": _MODULAR,
    "HeliosPyramidPipeline": "it makes each chunk at several sizes, in loops of their own",
    "HunyuanVideo15ModularPipeline": _MODULAR,
    "JoyImageEditPipeline": _IMAGE,
    "Kandinsky6SRPipeline": _NO_GUIDANCE,
    "Kandinsky6TI2VAPipeline": "it guides picture and sound by one scale, and no test covers it",
    "LTX25ModularPipeline": _MODULAR,
    "LTX2DFRPipeline": _REFERENCE,
    "LTX2DFRTemporalRefinePipeline": _REFERENCE,
    "LTX2HDRPipeline": _REFERENCE,
    "LTX2InContextPipeline": _REFERENCE,
    "LTX2LatentUpsamplePipeline": _NO_GUIDANCE,
    "LTX2ModularPipeline": _MODULAR,
    "LTX2VideoDiffusionDecodePipeline": _NO_GUIDANCE,
    "LTXI2VLongMultiPromptPipeline": _CHUNKS,
    "LTXLatentUpsamplePipeline": _NO_GUIDANCE,
    "LTXModularPipeline": _MODULAR,
    "MiniMaxH3ModularPipeline": _MODULAR,
    "SanaWMPipeline": "its camera paths are arguments without rows that no declaration names",
    "TextToVideoZeroPipeline": "it runs its first frame through several loops of its own",
    "TextToVideoZeroSDXLPipeline": "it runs its first frame through several loops of its own",
    "Wan22Image2VideoModularPipeline": _MODULAR,
    "Wan22ModularPipeline": _MODULAR,
    "Wan22VaceModularPipeline": _MODULAR,
    "WanAnimate2DistilledModularPipeline": _MODULAR,
    "WanAnimate2ModularPipeline": _MODULAR,
    "WanImage2VideoModularPipeline": _MODULAR,
    "WanModularPipeline": _MODULAR,
}
"""Pipeline class -> the end of a sentence that says why."""
