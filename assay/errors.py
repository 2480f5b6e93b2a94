"""The exception of each reason to refuse, by name: `assay.errors.InsufficientBalance`.

All are kinds of `assay.Rejection`: `reason` is the stable code, `detail` what was seen, `remedy`
what to do. docs/reasons.md lists them.
"""

from chain import rejections
from chain.rejections import EXCEPTIONS, Rejection

_BY_NAME: dict[str, type[Rejection]] = {
    "Busy": rejections.Busy,
    **{kind.__name__: kind for kind in EXCEPTIONS.values()},
}
__all__ = sorted(_BY_NAME)  # noqa: PLE0605 - made from the one list there is


def __getattr__(name: str) -> type[Rejection]:
    if name not in _BY_NAME:
        raise AttributeError(f"no reason has an exception {name!r}; docs/reasons.md lists them")
    return _BY_NAME[name]
