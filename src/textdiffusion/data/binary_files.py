"""Names the kind of a file that is not text, from its first bytes."""

from __future__ import annotations

HEAD = 512  # bytes that tell the kind

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive (or a document in one, such as .docx, .epub or .odt)"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\x7fELF", "a program (ELF)"),
    (b"MZ", "a Windows program"),
    (b"\xcf\xfa\xed\xfe", "a macOS program"),
    (b"\xca\xfe\xba\xbe", "a Java class or a macOS program"),
    (b"\x00asm", "a WebAssembly program"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"\x04\x22\x4d\x18", "an LZ4 file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"SQLite format 3\x00", "a SQLite database"),
    (b"PAR1", "a Parquet file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"RIFF", "a sound, video or WebP file"),
    (b"ID3", "an MP3 file"),
    (b"OggS", "an Ogg file"),
    (b"fLaC", "a FLAC file"),
    (b"BM", "a bitmap image"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"\xde\x12\x04\x95", "a gettext catalogue (.mo)"),
)
_TEXT_CONTROLS = frozenset(b"\t\n\v\f\r\b\x1a\x1b")


def signature_kind(head: bytes) -> str:
    """What a file that begins with `head` is by its signature; empty if it has none."""
    for signature, name in _SIGNATURES:
        # Letters alone may also begin a text, except where they are as particular as those of PDF.
        if head.startswith(signature) and (_count_controls(head) or not signature.isalnum()):
            return name
    return "a tar archive" if head[257:262] == b"ustar" else ""


def binary_kind(head: bytes) -> str:
    """What a file that could not be read as text is, by its signature or its control characters; empty if unknown."""
    return signature_kind(head) or ("a binary file" if _count_controls(head) > 0.02 * len(head) else "")


def _count_controls(head: bytes) -> int:
    return sum(byte < 32 and byte not in _TEXT_CONTROLS for byte in head)
