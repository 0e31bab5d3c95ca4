"""Formats that are named and not read, each with what to do."""

from __future__ import annotations

from tinyvae.data.formats.registry import refuses

refuses("a pickle, which could run code", "save the array with np.save instead",
        *(b"\x80" + bytes([protocol]) for protocol in range(2, 6)))
refuses("an Arrow file", "read it with pandas.read_feather and save its numbers with np.save", b"ARROW1", b"FEA1")
refuses("a tar archive", "unpack it with tar xf, and give the folder of its images", (b"ustar", 257))
refuses("a file compressed by bzip2", "unpack it with bunzip2", b"BZh")
refuses("a file compressed by xz", "unpack it with unxz", b"\xfd7zXZ\0")
refuses("a file compressed by Zstandard", "unpack it with unzstd", b"\x28\xb5\x2f\xfd")
refuses("a 7z archive", "unpack it with 7z x, and give the folder of its images", b"7z\xbc\xaf\x27\x1c")
refuses("a RAR archive", "unpack it with unrar x, and give the folder of its images", b"Rar!\x1a\x07")
refuses("a PDF document", "save its images as PNG files into a folder", b"%PDF-")
refuses("a PostScript document", "save its images as PNG files into a folder", b"%!PS", b"\xc5\xd0\xd3\xc6")
refuses("a database of SQLite", "read its images with sqlite3 and save them with np.save", b"SQLite format 3\0")
refuses("a web page", "the download gave a page in place of the file: get it again",
        b"<!DOCTYPE", b"<!doctype", b"<html")
refuses("a pointer of Git LFS", "get the file itself with git lfs pull", b"version https://git-lfs")
