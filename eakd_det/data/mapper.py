"""Reading the images of a detector's batches, with words about those that cannot be read."""

from typing import Any

from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import SizeMismatchError

from eakd_det.utils.errors import UserError

from .image_files import has_wide_values, look_at_file

JPEG = (".jpg", ".jpeg")  # which are of 8 bits


class CheckingMapper(DatasetMapper):
    """DatasetMapper that names the file where an image cannot be read, or not as it is meant."""

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            dataset_dict: of an image, in Detectron2's format.

        Raises:
            UserError: its file is missing, broken, of another size than the dataset says, or its
                values do not fit into 8 bits.
        """
        path = dataset_dict["file_name"]
        if "://" in path:  # which only Detectron2's PathManager can open
            return super().__call__(dataset_dict)
        try:
            is_wide = not path.lower().endswith(JPEG) and has_wide_values(path)
            fault = look_at_file(path).fault if is_wide else ""
            read = None if fault else super().__call__(dataset_dict)
        except SizeMismatchError as error:
            raise UserError(str(error)) from error
        except Exception as error:  # of a broken image, almost any
            fault = look_at_file(path).fault
            if not fault:
                raise
            raise UserError(_sentence(fault)) from error
        if fault:
            raise UserError(_sentence(fault))
        return read


def _sentence(fault: str) -> str:
    return f"{fault}. Mend it, or take the image out of the data; then --resume goes on."
