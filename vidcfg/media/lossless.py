"""Whether a stream's codec keeps every value that was put in."""

LOSSLESS_CODECS = frozenset(
    ["ffv1", "ffvhuff", "huffyuv", "utvideo", "magicyuv", "rawvideo"]
    + ["png", "apng", "bmp", "tiff", "qoi", "qtrle", "zlib"]
)
"""FFmpeg decoder names of codecs that have no lossy mode."""

LOSSY_CODECS = frozenset(
    ["h264", "hevc", "vp8", "mpeg4", "mpeg1video", "mpeg2video", "mjpeg"]
    + ["prores", "wmv2", "wmv3", "theora", "gif", "dvvideo"]
)
"""Codecs that lose something unless their header says otherwise (only H.264's is read)."""


def is_lossless(codec: str, pixel_format: str, extradata: bytes | None) -> bool | None:
    """True if decoded pixels are the stored ones, False if not, None if it cannot be told.

    Chroma at half resolution counts as lossy. H.264 counts as lossless where its sequence header
    lets blocks pass untransformed, which encoders set for quantiser 0 only.
    """
    if any(part in pixel_format for part in ("420", "422", "411", "410", "440", "nv12", "pal8")):
        return False
    if codec in LOSSLESS_CODECS:
        return True
    if codec == "h264":
        return _h264_bypasses_transform(extradata or b"")
    return False if codec in LOSSY_CODECS else None


def _h264_bypasses_transform(extradata: bytes) -> bool | None:
    """qpprime_y_zero_transform_bypass_flag of the first sequence header; None without a header.

    Layout: ITU-T H.264, 7.3.2.1.1; avcC box: ISO/IEC 14496-15.
    """
    header = _sequence_header(extradata)
    if header is None or len(header) < 5:
        return None
    if header[1] not in (100, 110, 122, 244, 44):
        return False
    bits = _Bits(header[4:])
    bits.exp_golomb()  # seq_parameter_set_id
    if bits.exp_golomb() == 3:  # chroma_format_idc 4:4:4
        bits.read(1)  # separate_colour_plane_flag
    bits.exp_golomb()  # bit_depth_luma_minus8
    bits.exp_golomb()  # bit_depth_chroma_minus8
    return bits.read(1) == 1


def _sequence_header(extradata: bytes) -> bytes | None:
    """The first NAL unit of type 7, from an avcC box or from start codes."""
    if extradata[:1] == b"\x01" and len(extradata) > 8 and extradata[5] & 0x1F:
        size = int.from_bytes(extradata[6:8], "big")
        return _unescape(extradata[8 : 8 + size])
    for unit in extradata.split(b"\x00\x00\x01")[1:]:
        if unit and unit[0] & 0x1F == 7:
            return _unescape(unit)
    return None


def _unescape(unit: bytes) -> bytes:
    return unit.replace(b"\x00\x00\x03", b"\x00\x00")


class _Bits:
    """Reads bits from the most significant end; zeros follow the last byte."""

    def __init__(self, data: bytes) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in data) + "0" * 64
        self._at = 0

    def read(self, count: int) -> int:
        value = int(self._bits[self._at : self._at + count], 2)
        self._at += count
        return value

    def exp_golomb(self) -> int:
        zeros = 0
        while zeros < 32 and self.read(1) == 0:
            zeros += 1
        return (1 << zeros) - 1 + (self.read(zeros) if zeros else 0)
