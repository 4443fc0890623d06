"""What an evaluation does, as one value that can be sent to another process."""

from dataclasses import dataclass, field

from vidcfg.metrics.metric import FAMILIES, WEIGHT_FREE


@dataclass(frozen=True)
class Settings:
    """`families` are keys of FAMILIES.

    `stride` replaces the temporal stride of the VAE, which is 4 unless the video's own record
    tells another. `fps` replaces that of the files. `paths` gives files for named weights.
    `workers` processes score beside this one; 0 scores in this one.
    """

    families: tuple[str, ...] = WEIGHT_FREE
    stride: int | None = None
    fps: float | None = None
    reference: str | None = None
    protocol: str = "google"
    lpips_net: str = "alex"
    clip_model: str = "openai/clip-vit-base-patch32"
    paths: dict[str, str] = field(default_factory=dict, hash=False)
    device: str = "cpu"
    batch_size: int = 16
    workers: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.families if name not in FAMILIES]
        if unknown or not self.families:
            from vidcfg.metrics.catalogue import METRICS
            from vidcfg.settings.validation import choose

            word = unknown[0] if unknown else ""
            if known := METRICS.get(word.partition("[")[0]):
                # Distances between sets come with every family that has a net.
                nets = " or ".join(name for name, family in FAMILIES.items() if family.net)
                write = known.family if known.family in FAMILIES else nets
                raise ValueError(f"metrics is {word!r}, one of a family. Write {write}.")
            raise ValueError(f"metrics is {word!r}, {choose(word, [*FAMILIES, 'all'])}")
        least = (("batch_size", 1, ""), ("workers", 0, ""), ("stride", 1, " (no stride)"))
        for name, number, meaning in least:
            value = getattr(self, name)
            if value is not None and value < number:
                raise ValueError(f"{name} is {value}, it has to be {number}{meaning} or more.")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ValueError(f"fps is {self.fps}, it has to be above 0 and at most 1000.")

    @property
    def nets(self) -> tuple[str, ...]:
        """The feature nets that the chosen families use."""
        return tuple(FAMILIES[name].net for name in self.families if FAMILIES[name].net)
