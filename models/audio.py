"""Decode one audio file to samples (mono, float32, at one rate), or say in plain words why that fails."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator, Iterator
from itertools import starmap
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from .audio_bytes import Content
from .audio_headers import ROUNDED_BYTES, is_unset, stated_end
from .audio_mpeg import counts_all, mpeg_stream
from .audio_notes import note
from .audio_opening import Sound, contents, existing, explained, ffmpeg, open_bytes, open_sound, reason
from .audio_streams import OPUS_HZ, Part, bytes_after, flac_parts, ogg_parts, uncounted_flac
from .errors import AudioError

__all__ = ["AUDIO_SUFFIXES", "AudioError", "Block", "audio_blocks", "load_audio", "read_duration", "to_int16"]

_LIBSNDFILE = (
    "8svx aif aifc aiff au avr bwf caf flac htk ircam mp1 mp2 mp3 mpa mpga nist oga ogg ogx opus paf pvf rf64 sds sf "
    "snd sph svx voc w64 wav wave wve xi"
)
_FFMPEG = (  # .ts is left out: it is TypeScript more often than sound
    "3g2 3gp 3gpp aac ac3 adts amr ape asf avi awb dts eac3 ec3 f4v flv m2ts m4a m4b m4r m4v mk3d mka mkv mov mp4 mpeg "
    "mpg mts ogv qt spx tak tta vob weba webm wma wmv wv"
)
AUDIO_SUFFIXES = frozenset(f".{suffix}" for suffix in f"{_LIBSNDFILE} {_FFMPEG}".split())  # of files that hold sound
# From seismic recorders to acoustic emission. What is slower or faster is a damaged header, or one that counts in kHz;
# resampled, it would fill the memory, or be nothing.
RATES_HZ = (100, 10_000_000)
MAX_CLIPPED = 0.25
MAX_OFFSET = 0.5
MAX_PEAK = 100.0  # of full scale, in files of floats: sound is louder than 1 at times, never 40 dB
_BLOCK = 2**14  # numbers that are decoded at once: all of them are lost where one cannot be
_JOINED = ("OGG", "FLAC")  # formats of which files are joined by writing one after the other
_UNCOUNTED = 2**62  # a number of samples beyond which libsndfile knows none
_MENDED_SIZE = re.compile(r"(?:data|SSND|Data Size  |Riff size) : (?P<says>\d+) \(should be (?P<should>\d+)\)")
_MATLAB = ("MAT4", "MAT5")
_MATLAB_COLUMNS = re.compile(r"Cols *: (\d+)")  # a sample in each; the last ones are those of the sound
_FRAMES_TOLERANCE = 0.01  # MP3 headers may or may not count the delay of the codec


class Block(NamedTuple):
    """A stretch of a file's sound."""

    samples: npt.NDArray[np.float32]  # [time, channels]
    rate: int  # in Hz


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """Round samples in -1..1 to 16-bit integers; what is louder is clipped."""
    return np.clip(np.round(waveform * 32_768), -32_768, 32_767).astype(np.int16)


def load_audio(
    source: str | Path | BinaryIO,
    sample_rate: int,
    max_duration_s: float | None = None,
    strict: bool = False,
    name: str | None = None,
) -> npt.NDArray[np.float32]:
    """Read a file, mix it down by the mean of its channels and resample it.

    Args:
        source: a file that libsndfile reads (WAV, FLAC, OGG, MP3, ...), or FFmpeg where PyAV is installed (M4A, WebM,
            ...): its path, or its bytes as an open file.
        sample_rate: of the result, in Hz.
        max_duration_s: read at most this much from the beginning, in seconds.
        strict: also refuse what can be heard but should not be learned from: a quarter of the samples clipped, or a DC
            offset of half of full scale.
        name: of the file in error messages; its path when left out.

    Returns:
        Samples, [time], float32, contiguous.

    Raises:
        AudioError: if the file is missing, cannot be decoded, is truncated, changes its sample rate or channels, has a
            sample rate beyond `RATES_HZ`, holds no samples, holds NaN, infinity or peaks far beyond full scale, or is
            digital silence (in the part that was read).
    """
    name = name or str(source)
    blocks = list(audio_blocks(source, name, max_duration_s))
    samples, source_rate = np.concatenate([block.samples for block in blocks]), blocks[0].rate
    mono = samples.mean(axis=1)
    if not np.ptp(mono):
        raise AudioError(f"{name}: is digital silence (every sample is {mono[0]:g})")
    if strict:
        _refuse_damaged(name, samples)
    if source_rate != sample_rate:
        with explained(name):
            mono = soxr.resample(mono, source_rate, sample_rate, quality="HQ")
        if not len(mono):
            raise AudioError(f"{name}: too short to be resampled from {source_rate} to {sample_rate} Hz")
    return np.ascontiguousarray(mono, dtype=np.float32)


def read_duration(source: str | Path | BinaryIO, name: str | None = None) -> float:
    """Return the length in seconds that the headers of a file, and of those that were joined to it, state.

    Little is decoded: MP3 whose header does not count its frames is read for their headers, and FLAC whose header
    counts its samples wrongly or not at all (as encoders write that do not know them yet) is decoded, as far as it can
    be. FLAC, OGG and Matroska are searched for files that were joined.

    Raises:
        AudioError: if the file is missing, its header cannot be read, or states a sample rate beyond `RATES_HZ`.
    """
    name = name or str(source)
    with explained(name):
        found = existing(source, name)
        try:
            file, data = open_sound(found, name)
        except soundfile.LibsndfileError as error:
            return float(ffmpeg(name, found, error).duration(contents(found), name))
        with file:
            rate = float(file.samplerate)
            _refuse_rate(name, file.samplerate)
            if "MPEG" in file.subtype and counts_all(data):
                return float(file.frames / rate)
            seconds = 0.0
            for whole in _wholes(file, data, name):
                if whole.frames > _UNCOUNTED:
                    return _number_of_samples(source, name) / rate
                seconds += whole.frames / float(whole.samplerate)
            return seconds


def _wholes(file: Sound, data: Content, name: str) -> Iterator[Sound]:
    """Yield a file with a header that is right, and those that were joined to it."""
    mended = _mended(file, data, name, sys.maxsize)
    with open_bytes(mended) if mended else file as first:
        yield first
    if file.format in _JOINED:
        for part in _parts(file, data)[1:]:
            with _joined(data, part, file.format) as after:
                yield after


def _number_of_samples(source: str | Path | BinaryIO, name: str) -> int:
    """Return how many samples can be decoded before the end, or before what cannot be."""
    number = 0
    try:
        for block in audio_blocks(source, name):
            number += len(block.samples)
    except AudioError:
        if not number:
            raise
    return number


# --- decoding --------------------------------------------------------------------------------------------------------


def audio_blocks(
    source: str | Path | BinaryIO, name: str | None = None, max_duration_s: float | None = None
) -> Iterator[Block]:
    """Decode a file block by block, so that one of any length takes no more memory than a short one.

    Args:
        source, max_duration_s, name: as of `load_audio`.

    Yields:
        at least one block; all have the same rate and number of channels.

    Raises:
        AudioError: as of `load_audio` where the file cannot be decoded, or its samples cannot be sound: what is wrong
            with its end is found there.
    """
    name = name or str(source)
    found = 0
    for block in _decoded(source, name, max_duration_s):
        if len(block.samples):
            _refuse_rate(name, block.rate)
            _refuse_numbers(name, block.samples)
            found += 1
            yield block
    if not found:
        raise AudioError(f"{name}: holds no samples")


def _decoded(source: str | Path | BinaryIO, name: str, max_duration_s: float | None) -> Iterator[Block]:
    with explained(name):
        checked = existing(source, name)
        try:
            file, data = open_sound(checked, name)
        except soundfile.LibsndfileError as error:
            yield from starmap(Block, ffmpeg(name, checked, error).decode(contents(checked), name, max_duration_s))
            return
        with file:
            wanted = sys.maxsize if max_duration_s is None else round(max_duration_s * file.samplerate)
            mended = _mended(file, data, name, wanted)
            if mended is None:
                found = yield from _read(file, name, wanted)
            else:
                with open_bytes(mended) as whole:
                    found = yield from _read(whole, name, wanted)
            if found < wanted and file.format in _JOINED:
                yield from _read_on(file, data, name, wanted - found)
            elif file.format == "OGG":
                _refuse_lost(file, ogg_parts(data, wanted * _positions(file))[0], name, wanted)
            _refuse_cut_off(name, file, data)  # after what there is, which readers of windows keep


def _mended(file: Sound, data: Content, name: str, wanted: int) -> bytes | None:
    """Return the file, without others that were joined to it, with a header that is right, or None if it is."""
    if "MPEG" in file.subtype:
        found = mpeg_stream(data, name, file.frames, wanted)
        if found.between and found.counted is not None:
            note(f"{name}: {found.between:,} bytes within the sound are no sound and are left out")
        if file.format == "MP3" and found.samples < wanted:
            _note_rest(name, bytes_after(data, found.end))
        return found.counted
    if file.format in _JOINED and file.frames > _UNCOUNTED:
        return data[: _parts(file, data)[0].end]  # without a second, which would be taken for more of this one
    if file.format == "FLAC" and file.frames < wanted:
        mended = uncounted_flac(data, flac_parts(data)[0])
        if mended:
            note(f"{name}: its header counts {file.frames:,} samples, and there are more; they are read to the end")
        return mended
    return None


def _read(file: Sound, name: str, wanted: int) -> Generator[Block, None, int]:
    """Yield the first samples, up to a number, in blocks until nothing comes: headers may state more than there is.

    Returns:
        how many there were.
    """
    stated, found, most = min(wanted, file.frames), 0, max(1, _BLOCK // file.channels)
    while found < stated:
        try:
            samples = file.read(min(stated - found, most), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{name}: is truncated or damaged ({reason(error)})") from error
        if not len(samples):
            break
        found += len(samples)
        yield Block(samples, file.samplerate)
    if file.frames <= _UNCOUNTED and found < stated * (1 - _FRAMES_TOLERANCE):
        raise AudioError(f"{name}: is truncated: {found} samples of sound, the header says {stated} or more")
    return found


def _read_on(file: Sound, data: Content, name: str, wanted: int) -> Iterator[Block]:
    """Yield up to `wanted` samples of the streams that were joined to the first of a file, which has been read."""
    parts = _parts(file, data)
    for number, part in enumerate(parts):
        if number:
            with _joined(data, part, file.format) as after:
                if (after.samplerate, after.channels) != (file.samplerate, file.channels):
                    raise AudioError(
                        f"{name}: changes its sample rate or channels after byte {part.start:,}; split it there"
                    )
                wanted -= yield from _read(after, name, wanted)
        if wanted <= 0:
            break
        _refuse_lost(file, part, name)
        if not part.ended:
            raise AudioError(f"{name}: is truncated: its last page is not marked as the end")
    else:
        _note_rest(name, bytes_after(data, parts[-1].end))


def _parts(file: soundfile.SoundFile, data: Content) -> list[Part]:
    """Return the files that were joined to one of Ogg or FLAC."""
    return ogg_parts(data) if file.format == "OGG" else flac_parts(data)


def _joined(data: Content, part: Part, kind: str) -> Sound:
    """Open one of the files that were joined, with a header that is right."""
    return open_bytes((uncounted_flac(data, part) if kind == "FLAC" else None) or data[part.start : part.end])


def _refuse_lost(file: soundfile.SoundFile, part: Part, name: str, wanted: int = sys.maxsize) -> None:
    """Refuse Ogg in which pages are missing, or damaged, among those that hold its first samples up to a number."""
    if part.lost_after is not None:
        sample = part.lost_after / _positions(file)
        if sample < wanted:
            raise AudioError(f"{name}: is damaged: pages are missing or damaged after {sample / file.samplerate:.1f} s")


def _positions(file: soundfile.SoundFile) -> float:
    """Return how much Ogg's count of positions grows with each sample."""
    return OPUS_HZ / file.samplerate if file.subtype == "OPUS" else 1.0


def _note_rest(name: str, number: int) -> None:
    if number:
        note(f"{name}: {number:,} bytes after the sound are no sound and are left out")


def _refuse_cut_off(name: str, file: soundfile.SoundFile, data: Content) -> None:
    """Refuse a file that ends before its header says; libsndfile repairs some of such headers and logs it."""
    mended = _MENDED_SIZE.search(file.extra_info)
    if mended:
        says, should = int(mended["says"]), int(mended["should"])
        if says > should + ROUNDED_BYTES and not is_unset(says):
            raise AudioError(f"{name}: is truncated: {should} bytes of sound, the header says {says}")
    end = stated_end(data)
    if end and end > len(data) + ROUNDED_BYTES and not is_unset(end):
        raise AudioError(f"{name}: is truncated: it ends at byte {len(data):,}, its header says {end:,}")
    columns = _MATLAB_COLUMNS.findall(file.extra_info) if file.format in _MATLAB else []
    if columns and int(columns[-1]) > file.frames:
        raise AudioError(f"{name}: is truncated: {file.frames} samples of sound, the header says {columns[-1]}")


def _refuse_rate(name: str, rate: int) -> None:
    """Refuse a sample rate, in Hz, at which no sound is recorded."""
    least, most = RATES_HZ
    if not least <= rate <= most:
        raise AudioError(
            f"{name}: its header states a sample rate of {rate:,} Hz, expected {least:,} to {most:,} Hz; "
            "it is damaged, or must be given its true rate"
        )


def _refuse_numbers(name: str, samples: npt.NDArray[np.float32]) -> None:
    """Refuse samples that are no sound: not finite, or of another scale, such as that of 16-bit integers."""
    peak = float(np.abs(samples).max())
    if not np.isfinite(peak):
        raise AudioError(f"{name}: holds NaN or infinite samples")
    if peak > MAX_PEAK:
        raise AudioError(f"{name}: has a peak of {peak:.6g} times full scale, expected floats from -1 to 1; rescale it")


def _refuse_damaged(name: str, samples: npt.NDArray[np.float32]) -> None:
    """Refuse heavy clipping and a large DC offset in samples [time, channels] as they were decoded."""
    peak = float(np.abs(samples).max())
    clipped = float((np.abs(samples) >= 0.999 * peak).mean())
    if peak >= 0.99 and clipped > MAX_CLIPPED:
        raise AudioError(f"{name}: is clipped: {clipped:.0%} of the samples are at full scale")
    offset = float(samples.mean())
    if abs(offset) > MAX_OFFSET:
        raise AudioError(f"{name}: has a DC offset of {offset:.2f} of full scale")
