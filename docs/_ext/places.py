"""`paths/base.py:Path.mix` in a page becomes a link to the account of that object, where there is one."""

import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

PLACE = re.compile(r"([\w/]+)\.py:([\w.]+)")


class Places(SphinxPostTransform):
    """Turns inline code of the form file.py:Object into cross-references."""

    default_priority = 1  # before references are resolved

    def run(self, **_: Any) -> None:
        for node in list(self.document.findall(nodes.literal)):
            match = PLACE.fullmatch(node.astext())
            if match and not isinstance(node.parent, nodes.reference | pending_xref):
                target = f"pellucid.{match[1].replace('/', '.')}.{match[2]}"
                link = pending_xref("", refdomain="py", reftype="obj", reftarget=target, refexplicit=True)
                node.replace_self(link)
                link += node


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(Places)
    return {"parallel_read_safe": True}
