"""Reading of XML files that may come from anywhere."""

from typing import Any, NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from eakd_det.utils.errors import UserError


def read_xml(path: str) -> Element:
    """Load an XML file that declares no entities, which could expand to any size or name files.

    Raises:
        UserError: the file is not XML, or declares entities.
    """
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(name: str, *_: Any) -> NoReturn:
        raise UserError(f"{path} declares the XML entity {name!r}; such files are not read.")

    parser.EntityDeclHandler = refuse
    try:
        with open(path, "rb") as f:
            parser.ParseFile(f)
    except UserError:
        raise
    except (OSError, expat.ExpatError, ValueError, LookupError) as error:  # also its encoding
        raise UserError(f"{path} cannot be read: {error}") from error
    return builder.close()
