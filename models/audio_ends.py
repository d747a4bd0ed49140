"""Find where the sound of a file ends by a header that libsndfile reads, but does not go by."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from .audio_bytes import Content, number

_NIST_FIELD = re.compile(rb"^(channel_count|sample_n_bytes|sample_count) -(?:i|s\d+) +(\d+)", re.MULTILINE)
_NIST_LARGEST = 2**16  # bytes of a header; common is 1,024
_VOC_TEXT, _VOC_SOUND = (5, 8), (1, 9)  # kinds of blocks: before the sound, and of it
_MOST_CHUNKS = 100  # that are looked at


def stated_end(data: Content) -> int | None:
    """Return where the sound ends in a file of AU, NIST SPHERE, AVR, MPC 2000, WVE, SDS, SVX or VOC; None for others.

    None, too, if the header does not say. IRCAM, PAF and PVF never do; of XI it is not looked for.
    """
    beginning = data[:64]
    try:
        return next((end(data) for magic, end in _ENDS.items() if re.match(magic, beginning, re.DOTALL)), None) or None
    except (struct.error, ValueError):  # the header itself is cut off
        return None


def _au_end(data: Content) -> int:
    form = ">I" if data[:1] == b"." else "<I"
    size = number(form, data, 8)
    return number(form, data, 4) + size if size else 0


def _nist_end(data: Content) -> int:
    header = int(data[8:16])
    fields = {name: int(number) for name, number in _NIST_FIELD.findall(data[: min(header, _NIST_LARGEST)])}
    size = fields.get(b"channel_count", 1) * fields.get(b"sample_n_bytes", 0) * fields.get(b"sample_count", 0)
    return header + size if size else 0


def _avr_end(data: Content) -> int:
    stereo, bits, samples = number(">H", data, 12), number(">H", data, 14), number(">I", data, 26)
    return 128 + samples * (bits // 8) * (2 if stereo else 1) if samples else 0


def _mpc_end(data: Content) -> int:
    samples, stereo = number("<I", data, 30), data[21]
    return 42 + samples * 2 * (2 if stereo else 1) if samples else 0


def _wve_end(data: Content) -> int:
    size = number(">I", data, 18)
    return 32 + size if size else 0


def _sds_end(data: Content) -> int:
    """Return the end of what is sent in packets of 127 bytes, 120 of them of samples, with 7 bits in a byte."""
    bits, low, middle, high = data[6], *data[10:13]
    in_packet = 120 // -(-bits // 7)
    return 21 + -(-(low | middle << 7 | high << 14) // in_packet) * 127


def _svx_end(data: Content) -> int:
    at = 12
    for _ in range(_MOST_CHUNKS):
        size = number(">I", data, at + 4)
        if data[at : at + 4] == b"BODY":
            return at + 8 + size if size else 0
        at += 8 + size + size % 2
    return 0


def _voc_end(data: Content) -> int:
    at = number("<H", data, 20)
    for _ in range(_MOST_CHUNKS):
        kind, size = data[at], int.from_bytes(data[at + 1 : at + 4], "little")
        if kind not in _VOC_TEXT:
            return at + 4 + size if kind in _VOC_SOUND else 0
        at += 4 + size
    return 0


_ENDS: dict[bytes, Callable[[Content], int]] = {
    rb"\.snd|dns\.": _au_end,
    rb"NIST_1A\n": _nist_end,
    rb"2BIT": _avr_end,
    rb"\x01\x04.{40}": _mpc_end,
    rb"ALawSoundFile": _wve_end,
    rb"\xf0\x7e.\x01": _sds_end,
    rb"FORM....(?:8SVX|16SV)": _svx_end,
    rb"Creative Voice File": _voc_end,
}
