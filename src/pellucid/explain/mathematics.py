"""Formulas for a page: plain words in, MathML out. The docstrings of the parts are the only source of their formulas.

    display("x_t = alpha_t x_0 + sigma_t eps")      an equation on a line of its own
    prose("alpha^2 + sigma^2 = 1 (Ho et al. 2020)")  a sentence, its symbols typeset
    number(3.2e-5)                                   3.2 x 10^-5

In an equation: names of Greek letters, `_` and `^` scripts, {a}/{b} a fraction, sqrt{a}, hat{a}, "words", mean for
the expectation, || for the bars of a divergence, ; between two equations on a line.
"""

import html
import math
import re

GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "eps": "ε", "kappa": "κ", "lam": "λ", "mu": "μ", "rho": "ρ",
    "sigma": "σ", "tau": "τ", "theta": "θ", "pi": "π", "phi": "φ", "eta": "η", "sum": "∑", "int": "∫", "mean": "𝔼",
}  # fmt: skip
SIGNS = {"-": "−", "*": "·", "~": "∼", "||": "∥", "'": "′"}
FENCE = '<mo stretchy="false" lspace="0.08em" rspace="0.08em">|</mo>'
_TOKEN = re.compile(r'"[^"]*"|\d+(?:\.\d+)?|[A-Za-z]+|\|\||\S')
_SYMBOL = re.compile(
    r"\b([a-z]\d?)\^(?![\w(-])"
    rf"|(?<![\w'.])((?:{'|'.join(GREEK)}|[b-zB-HJ-Z])(?:'|\d)?(?:_\w+)?(?:\^-?\w+)?|\d+\^-?\w+)(?!\w|\.\w|-[A-Z])"
    r"|`([^`]+)`|\^(-?\w+)|\^\(([^()]*)\)"
)


def display(formula: str) -> str:
    """An equation on its own line."""
    return f'<math display="block">{_row(formula)}</math>'


def inline(formula: str) -> str:
    """An equation within a sentence."""
    return f"<math>{_row(formula)}</math>"


def prose(text: str) -> str:
    """A sentence of a docstring: symbols become mathematics, `names` become code."""
    text = re.sub(r"(?<=[\s(])-(?=[\w(])|(?<= )-(?= )|(?<=[A-Z])-(?=\d)", "−", text)

    def typeset(match: re.Match[str]) -> str:
        hatted, symbol, code, power, powers = match.groups()
        if symbol or hatted:
            return inline(symbol or f"hat{{{hatted}}}")
        return f"<code>{code}</code>" if code else f"<sup>{prose(power or powers)}</sup>"

    return _SYMBOL.sub(typeset, html.escape(text, quote=False)).replace("'", "’")


def number(value: float | None, digits: int = 4) -> str:
    """A number as it is read: few digits, ∞, powers of ten raised; nothing where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == int(value) and abs(value) < 1e7:
        text = f"{int(value):,}".replace(",", "\u202f")  # a narrow space between thousands
    else:
        text = f"{value:.{digits}g}"
    mantissa, _, exponent = text.partition("e")
    power = f"×10<sup>{int(exponent)}</sup>" if exponent else ""
    return (mantissa + power).replace("-", "−")


def _row(formula: str) -> str:
    tokens = _TOKEN.findall(re.sub(r"([A-Za-z])(\d)", r"\1_\2", formula))
    return f"<mrow>{_sequence(tokens[::-1])}</mrow>"


def _sequence(tokens: list[str], end: str = "") -> str:
    """Atoms with their scripts up to `end`; tokens are taken from the back of the list."""
    parts = []
    while tokens and tokens[-1] != end:
        parts.append(_scripted(tokens))
    if tokens:
        tokens.pop()
    return "".join(parts)


def _scripted(tokens: list[str]) -> str:
    base, scripts = _atom(tokens), {}
    while tokens and tokens[-1] in "_^":
        mark, sign = tokens.pop(), "<mo>−</mo>" if tokens[-1] == "-" and tokens.pop() else ""
        scripts[mark] = f"<mrow>{sign}{_atom(tokens)}</mrow>" if sign else _atom(tokens)
    if len(scripts) == 2:
        return f"<msubsup>{base}{scripts['_']}{scripts['^']}</msubsup>"
    for mark, script in scripts.items():
        tag = "msub" if mark == "_" else "msup"
        base = f"<{tag}>{base}{script}</{tag}>"
    return base


def _atom(tokens: list[str]) -> str:
    token = tokens.pop()
    if token == "{":
        inner = f"<mrow>{_sequence(tokens, '}')}</mrow>"
        if tokens[-2:] == ["{", "/"]:
            tokens.pop()
            return f"<mfrac>{inner}{_atom(tokens)}</mfrac>"
        return inner
    if token == "(":
        inner = _sequence(tokens, ")")
        stretch = "" if "<mfrac" in inner else ' stretchy="false"'
        return f"<mrow><mo{stretch}>(</mo>{inner}<mo{stretch}>)</mo></mrow>"
    if token == "|":
        return FENCE
    if token == ";":
        return '<mspace width="2em"/>'
    if token in ("sqrt", "hat"):
        inner = _atom(tokens)
        return f"<msqrt>{inner}</msqrt>" if token == "sqrt" else f"<mover>{inner}<mo>^</mo></mover>"
    if token[0] == '"':
        return f"<mtext>&nbsp;{html.escape(token[1:-1])}&nbsp;</mtext>"
    if token[0].isdigit():
        return f"<mn>{token}</mn>"
    if token in GREEK or len(token) == 1 and token.isalpha():
        return f"<mi>{GREEK.get(token, token)}</mi>"
    if token.isalpha():
        return f'<mi mathvariant="normal">{token}</mi><mspace width="0.17em"/>'
    return f"<mo>{html.escape(SIGNS.get(token, token))}</mo>"
