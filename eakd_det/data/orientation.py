"""Images that are stored sideways, with an EXIF orientation that Detectron2 applies."""

from collections.abc import Callable
from typing import Any

from eakd_det.utils.errors import UserError

from .image_files import ImageFile

# EXIF orientations that swap width and height -> upright position of the point (x, y) of an image
# with the stored size (w, h).
UPRIGHT: dict[int, Callable[[float, float, float, float], tuple[float, float]]] = {
    5: lambda x, y, w, h: (y, x),
    6: lambda x, y, w, h: (h - y, x),
    7: lambda x, y, w, h: (h - y, w - x),
    8: lambda x, y, w, h: (y, w - x),
}


def upright_size(file: ImageFile) -> tuple[int, int]:
    """Return width and height of an image as Detectron2 reads it, upright."""
    size = (file.width, file.height)
    return size[::-1] if file.orientation in UPRIGHT else size


def rotate_upright(annotation: dict[str, Any], file: ImageFile) -> None:
    """Rotate box and polygons, in pixels of the stored image, as its EXIF orientation says.

    Raises:
        UserError: the annotation has an RLE mask or keypoints.
    """
    move = UPRIGHT[file.orientation]
    x, y, width, height = annotation["bbox"]
    corners = [move(*p, file.width, file.height) for p in [(x, y), (x + width, y + height)]]
    (x1, x2), (y1, y2) = map(sorted, zip(*corners, strict=True))
    annotation["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    if isinstance(annotation.get("segmentation"), list):
        annotation["segmentation"] = [
            [
                v
                for p in zip(polygon[::2], polygon[1::2], strict=True)
                for v in move(*p, file.width, file.height)
            ]
            for polygon in annotation["segmentation"]
        ]
    elif annotation.get("segmentation") or annotation.get("keypoints"):
        raise UserError(
            f"annotation {annotation['id']} of image {annotation['image_id']}: the file is stored "
            "sideways (EXIF), and a mask in RLE or keypoints cannot be rotated: save the image "
            "upright."
        )
