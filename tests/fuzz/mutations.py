"""Mutate files as accidents and people do: bits flip, ends are lost, blocks repeat, numbers become absurd."""

from __future__ import annotations

import numpy as np

ODD_TEXTS = (
    b"", b"null", b"-1", b"0", b"1e400", b"-.inf", b".nan", b"99999999999999999999", b"true", b"[]", b"{}", b"[[[[[[",
    b"'", b'"', b"\\", b"../../etc/passwd", b"/dev/null", b"~", b"a" * 5000, "é\u0301\u202e\ud7ff".encode(),
    b"\xff\xfe", b"\x00", b"{{7*7}}", b"%s%n", b"&a [*a]", b"!!python/object:os.system", b"2024-02-30", b"\r\n", b"\t",
)  # fmt: skip
MOST = 6  # mutations of a file
ENDS = (0, 1, 0x7F, 0x80, 0xFF)


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a content with one to `MOST` mutations, each a random one at a random place."""
    for _ in range(rng.integers(1, MOST + 1)):
        content = MUTATIONS[rng.integers(len(MUTATIONS))](content, rng)
    return content


def _place(content: bytes, rng: np.random.Generator) -> int:
    """Return a place, near the beginning in half of the cases: headers decide more than what follows."""
    most = min(len(content), 200) if rng.random() < 0.5 else len(content)
    return int(rng.integers(most + 1))


def _flip(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.integers(1, 9)):
        if changed:
            changed[min(_place(content, rng), len(changed) - 1)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _overwrite(content: bytes, rng: np.random.Generator) -> bytes:
    at, length = _place(content, rng), int(rng.choice([1, 2, 4, 8]))
    return content[:at] + bytes([int(rng.choice(ENDS))]) * length + content[at + length :]


def _cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: _place(content, rng)]


def _drop(content: bytes, rng: np.random.Generator) -> bytes:
    at = _place(content, rng)
    return content[:at] + content[at + int(rng.integers(1, 65)) :]


def _repeat(content: bytes, rng: np.random.Generator) -> bytes:
    at, length = _place(content, rng), int(rng.integers(1, 257))
    return content[: at + length] + content[at : at + length] * int(rng.integers(1, 4)) + content[at + length :]


def _zeros(content: bytes, rng: np.random.Generator) -> bytes:
    at, length = _place(content, rng), int(rng.integers(1, 513))
    return content[:at] + bytes(len(content[at : at + length])) + content[at + length :]


def _odd_text(content: bytes, rng: np.random.Generator) -> bytes:
    """Put an odd text in the place of what stands between two separators, as a value of a table or file of settings."""
    text = ODD_TEXTS[rng.integers(len(ODD_TEXTS))]
    ends = [at for at, byte in enumerate(content[:20_000]) if byte in b' ,:;"\n{}[]']
    if len(ends) < 2:
        return content + text
    first = int(rng.integers(len(ends) - 1))
    return content[: ends[first] + 1] + text + content[ends[first + 1] :]


def _swap_lines(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.split(b"\n")
    one, other = rng.integers(len(lines), size=2)
    lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines)


MUTATIONS = (_flip, _overwrite, _cut, _drop, _repeat, _zeros, _odd_text, _odd_text, _swap_lines)
