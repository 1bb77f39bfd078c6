"""Font files of Debian's packages fonts-*, by a fixed table."""

import csv
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eakd_det.utils.errors import UserError

TABLE = Path(__file__).with_name("typefaces.tsv")
FONTS = "usr/share/fonts"  # of a package
UNPACKED = "glyphs100-fonts"  # folder of unpacked packages, in the datasets' folder
RELEASE = "Debian 12"  # whose files the table lists


@dataclass(frozen=True)
class Face:
    """A font file.

    Attributes:
        family: typeface; families of one design, such as clones of Helvetica, count as one.
        split: "train" or "test", the same for all faces of a family.
        package: of Debian.
        file: path below /usr/share/fonts.
        sha256: of the file.
        without: characters that the file lacks, or draws like another class.
    """

    family: str
    split: str
    package: str
    file: str
    sha256: str
    without: str


def read_faces(table: Path = TABLE) -> list[Face]:
    """Read a table of font files."""
    with open(table, encoding="utf-8", newline="") as f:
        return [Face(**row) for row in csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE)]


def find_fonts(faces: Sequence[Face], root: str, system: str = "/") -> list[str]:
    """Return the paths of font files, in packages unpacked in `root` or else installed ones.

    Args:
        root: the datasets' folder.
        system: folder in which packages are installed.

    Raises:
        UserError: a file is missing or is another one; the message is the command that gets it.
    """
    unpacked = os.path.join(root, UNPACKED)
    folders = [os.path.join(folder, FONTS) for folder in (unpacked, system)]
    paths = [[os.path.join(folder, face.file) for folder in folders] for face in faces]
    found = [next(filter(os.path.isfile, pair), "") for pair in paths]
    missing = [face for face, path in zip(faces, found, strict=True) if not path]
    if missing:
        raise UserError(
            f"glyphs100 is drawn from {len(faces)} font files of {RELEASE}; {len(missing)} are "
            f"missing, the first is {os.path.join(folders[1], missing[0].file)}. "
            f"To get them: {_commands(missing, unpacked)}"
        )
    for face, path in zip(faces, found, strict=True):
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        if digest != face.sha256:
            raise UserError(
                f"{path} is not the file of {face.package} in {RELEASE}: its SHA256 is {digest}, "
                f"not {face.sha256}. To get that file: {_commands([face], unpacked)}. Files in "
                f"{unpacked} are used before installed ones."
            )
    return found


def _commands(faces: Sequence[Face], unpacked: str) -> str:
    packages = " ".join(sorted({face.package for face in faces}))
    return (
        f"apt-get install {packages}; or without root, on {RELEASE}: mkdir -p {unpacked} && cd "
        f"{unpacked} && apt-get download {packages} && for p in *.deb; do dpkg -x $p .; done"
    )
