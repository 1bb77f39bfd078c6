import pytest

from eakd_det.data.conversion.xml import read_xml
from eakd_det.utils.errors import UserError

LAUGHS = "".join(f'<!ENTITY x{i + 1} "{10 * f"&x{i};"}">' for i in range(9))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_elements(tmp_path, encoding):
    text = "<annotation><object><name>Mü &amp; c</name></object><a/></annotation>"
    declared = encoding.removesuffix("-sig")
    text = f'<?xml version="1.0" encoding="{declared}"?>{text}'
    (tmp_path / "a.xml").write_text(text, encoding=encoding)
    tree = read_xml(str(tmp_path / "a.xml"))
    assert (tree.tag, tree.findtext("object/name")) == ("annotation", "Mü & c")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f'<!DOCTYPE a [<!ENTITY x0 "ha">{LAUGHS}]><a>&x9;</a>', "declares the XML entity 'x0'"),
        (
            '<!DOCTYPE a [<!ENTITY x SYSTEM "/etc/passwd">]><a>&x;</a>',
            "declares the XML entity 'x'",
        ),
        ('<!DOCTYPE a [<!ENTITY % x SYSTEM "http://x/y">]><a/>', "declares the XML entity 'x'"),
        ("<a><b></a>", "cannot be read: mismatched tag: line 1"),
        ("", "cannot be read: no element found"),
        ('<?xml version="1.0" encoding="gb2312"?><a/>', "cannot be read: .*encoding"),
        ('<?xml version="1.0" encoding="nonsense"?><a/>', "cannot be read: .*encoding"),
    ],
)
def test_refused(tmp_path, text, problem):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(UserError, match=rf"a\.xml {problem}"):
        read_xml(str(tmp_path / "a.xml"))


def test_missing(tmp_path):
    with pytest.raises(UserError, match=r"a\.xml cannot be read"):
        read_xml(str(tmp_path / "a.xml"))
