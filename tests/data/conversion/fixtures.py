"""Pascal VOC and YOLO datasets of a few images."""

from tests.data.test_coco_check import HEIGHT, WIDTH, save_image

OBJECTS = (("bolt", (5, 6, 25, 16)), ("nut", (1, 1, WIDTH, HEIGHT)))  # corners of VOC, from 1
BOXES = [[4, 5, 21, 11], [0, 0, WIDTH, HEIGHT]]  # the same in COCO format
YOLO = "0 0.241666667 0.2625 0.35 0.275\n1 0.5 0.5 1 1\n"  # the same


def voc_xml(objects=OBJECTS, *, size=(WIDTH, HEIGHT), file_name="a.jpg", more=""):
    """Text of an XML file; `more` is added to each object."""
    found = "".join(
        f"<object><name>{name}</name>{more}<bndbox>"
        + "".join(
            f"<{key}>{v}</{key}>"
            for key, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        + "</bndbox><part><name>part</name><bndbox><xmin>1</xmin></bndbox></part></object>"
        for name, box in objects
    )
    size = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation><filename>{file_name}</filename>{size}{found}</annotation>"


def write(root, files):
    """Write files: text, or options of `save_image` for an image; the folder as text."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        else:
            save_image(path, **content)
    return str(root)


def boxes(data):
    """File name -> (class, box) of its objects, in a COCO dict."""
    names = {c["id"]: c["name"] for c in data["categories"]}
    found = {image["file_name"]: [] for image in data["images"]}
    files = {image["id"]: image["file_name"] for image in data["images"]}
    for a in data["annotations"]:
        box = [round(v, 3) for v in a["bbox"]]
        found[files[a["image_id"]]].append((names[a["category_id"]], box))
    return found
