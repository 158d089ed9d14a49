"""Files that are often found under a model's name and are something else: named, with the remedy."""

from __future__ import annotations

from refnet.core.errors import UnsupportedError

HEAD = 512
"""Bytes from which a file's kind is told."""

PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip < FILE > NEW"),
    b"BZh": ("bzip2", "bunzip2 < FILE > NEW"),
    b"\xfd7zXZ\0": ("xz", "unxz < FILE > NEW"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd < FILE > NEW"),
    b"7z\xbc\xaf\x27\x1c": ("7z", "7z x FILE"),
    b"Rar!\x1a\x07": ("rar", "unrar x FILE"),
}
"""The first bytes of a compressed file -> (its kind, what unpacks it; `gunzip net.pth` refuses the name)."""


def refuse_foreign(head: bytes, file: str) -> None:
    """UnsupportedError for a Git LFS pointer, a web page and a compressed file; nothing for any other head.

    >>> refuse_foreign(b"version https://git-lfs.github.com/spec/v1", "a.pth")
    Traceback (most recent call last):
    refnet.core.errors.UnsupportedError: a.pth: is a Git LFS pointer, not the file: git lfs pull gets the file
    """
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    if start.startswith(b"version https://git-lfs"):
        raise UnsupportedError(f"{file}: is a Git LFS pointer, not the file: git lfs pull gets the file")
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        remedy = "a server's page was saved instead: download the file again"
        raise UnsupportedError(f"{file}: is an HTML page, not the file: {remedy}")
    if start.startswith(b"<?xml") and not file.endswith(".xml"):
        remedy = "a server's answer was saved instead: download the file again"
        raise UnsupportedError(f"{file}: is an XML document, not the file: {remedy}")
    for magic, (kind, command) in PACKED.items():
        if head.startswith(magic):
            raise UnsupportedError(f"{file}: is compressed ({kind}): {command} unpacks it")


def other_weights(head: bytes) -> str | None:
    """What a file that no torch version wrote is, with the remedy; None if it is not known.

    >>> other_weights(bytes([0x12, 1, 0, 0, 0, 0, 0, 0]))
    "MXNet's .params: name it .params"
    """
    if head[8:9] == b"{" and head[4:8] == bytes(4):
        return "safetensors: name it .safetensors"
    if head[:8] == b"\x12\x01" + bytes(6):
        return "MXNet's .params: name it .params"
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        return "HDF5 (Keras): save a state dict with torch, or export to ONNX"
    if head[:6] == b"\x93NUMPY":
        return "a NumPy array: weights are many arrays with names"
    if head[257:262] == b"ustar":
        return "a tar archive (torch wrote such until 2017): load it with torch, and save it again"
    return None


def other_zip(names: list[str]) -> str | None:
    """What a zip is that torch.save did not write, with the remedy; None if it is not known.

    >>> other_zip(["a/data.pkl", "a/constants.pkl"])  # doctest: +ELLIPSIS
    'a TorchScript program: torch.save(torch.jit.load(FILE).state_dict(), ...) writes its weights'
    """
    last = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in last:
        return "a TorchScript program: torch.save(torch.jit.load(FILE).state_dict(), NEW) writes its weights"
    if last & {"serialized_exported_program.json", "archive_format"} or any("/models/" in n for n in names):
        return "an exported program: torch.save(torch.export.load(FILE).state_dict, NEW) writes its weights"
    if last and all(name.endswith(".npy") for name in last):
        return "NumPy's .npz: write its arrays with safetensors.numpy.save_file"
    return None
