"""Dataset mapper that reports images that cannot be read as user errors."""

from typing import Any

from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import SizeMismatchError

from eakd_det.utils.errors import UserError

from .image_files import check_image_file, has_wide_values

JPEG = (".jpg", ".jpeg")  # always 8 bits a channel


class CheckingMapper(DatasetMapper):
    """DatasetMapper that raises an error with the file's name if an image cannot be read."""

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map the dict of an image, in Detectron2's format.

        Raises:
            UserError: the image file is missing or broken, its size is not that of the dataset, or
                its values do not fit into 8 bits.
        """
        path = dataset_dict["file_name"]
        if "://" in path:  # only Detectron2's PathManager can open it
            return super().__call__(dataset_dict)
        try:
            is_wide = not path.lower().endswith(JPEG) and has_wide_values(path)
            problem = check_image_file(path).problem if is_wide else ""
            mapped = None if problem else super().__call__(dataset_dict)
        except SizeMismatchError as error:
            raise UserError(str(error)) from error
        except Exception as error:  # a broken image can raise almost any
            problem = check_image_file(path).problem
            if not problem:
                raise
            raise UserError(_message(problem)) from error
        if problem:
            raise UserError(_message(problem))
        return mapped


def _message(problem: str) -> str:
    return f"{problem}. Repair the image or remove it from the data, then continue with --resume."
