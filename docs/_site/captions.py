"""A picture that stands alone has its description below it: what is written into a picture is too small on a phone."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform


class Captions(SphinxTransform):
    """Make a figure of every paragraph that is one picture."""

    default_priority = 210

    def apply(self) -> None:
        """Take the pictures' descriptions as captions."""
        for image in list(self.document.findall(nodes.image)):
            paragraph = image.parent
            if isinstance(paragraph, nodes.paragraph) and len(paragraph) == 1 and image.get("alt"):
                # No ``caption``: that would want a label, to be numbered.
                legend = nodes.legend("", nodes.paragraph(text=image["alt"]))
                paragraph.replace_self(nodes.figure("", image, legend))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_transform(Captions)
    return {"parallel_read_safe": True}
