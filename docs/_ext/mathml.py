"""TeX to MathML while the pages are built: browsers draw it themselves, no script and no other host is asked."""

import re

from docutils.nodes import Element, SkipNode
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.writers.html5 import HTML5Translator

CAPITALS = {
    "mathcal": dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "𝒜ℬ𝒞𝒟ℰℱ𝒢ℋℐ𝒥𝒦ℒℳ𝒩𝒪𝒫𝒬ℛ𝒮𝒯𝒰𝒱𝒲𝒳𝒴𝒵", strict=True)),
    "mathbb": dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "𝔸𝔹ℂ𝔻𝔼𝔽𝔾ℍ𝕀𝕁𝕂𝕃𝕄ℕ𝕆ℙℚℝ𝕊𝕋𝕌𝕍𝕎𝕏𝕐ℤ", strict=True)),
}


def mathml(tex: str, display: str) -> str:
    """MathML of a formula. An unknown command stops the build: nothing is shown half translated."""
    tex = re.sub(r"\\(mathcal|mathbb)\s*\{?([A-Z])\}?", lambda match: CAPITALS[match[1]][match[2]], tex)
    tex = re.sub(r"(begin|end)\{aligned\}", r"\1{align*}", tex)
    for side, fence in (("l", r"\left"), ("r", r"\right")):
        tex = tex.replace(rf"\{side}vert", rf"{fence}|").replace(rf"\{side}Vert", rf"{fence}\|")
    out: str = convert(tex, display=display)
    out = re.sub(r"<mi>(log|exp)</mi>(?!<mo)", r'<mi>\1</mi><mspace width="0.17em" />', out)
    if left := re.search(r"\\\w*|<m[io]>&</m[io]>", out):
        raise SphinxError(f"mathml: {left[0]!r} is not known in {tex!r}")
    return out


def inline(translator: HTML5Translator, node: Element) -> None:
    translator.body.append(mathml(node.astext(), "inline"))
    raise SkipNode


def block(translator: HTML5Translator, node: Element) -> None:
    translator.body.append(mathml(node.astext(), "block"))
    raise SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
