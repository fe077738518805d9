"""What an item is worth: a formula over the probabilities of its tasks. Shapes: X = any shape, K = candidates, T = tasks.

Either weights, {"click": 1, "purchase": 4}, or a text, "click * (1 + 4 * purchase)", which is read with `ast` and never run as
code.
"""

import ast
import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from recsys.errors import InputError

Array = np.ndarray[Any, Any]
Node = Callable[[Mapping[str, Array]], Any]
MAX_LENGTH = 300  # letters; bounds the depth of the formula as well
MAX_CORNERS = 1_000
LOWEST = float(np.finfo(np.float32).min)  # of an item for which the formula has no finite value
OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: operator.pow,
}  # fmt: skip
FUNCTIONS: dict[str, tuple[Callable[..., Any], int]] = {  # and how many arguments
    "min": (np.minimum, 2), "max": (np.maximum, 2), "log1p": (np.log1p, 1), "sqrt": (np.sqrt, 1),
}  # fmt: skip


class ValueFormula:
    """Callable: probability_XT -> value_X, float64. Raises InputError, naming the part, for a formula that cannot be used."""

    def __init__(self, value: Mapping[str, float] | str, tasks: Sequence[str]) -> None:
        self.value, self.tasks = value, tuple(tasks)
        for name in tasks_of(value):
            if name not in self.tasks:
                raise InputError(f"value formula names the unknown task {name!r}: choose from {list(tasks)}")
        if isinstance(value, str):
            self._node, names = _parse(value)
            _check_finite(value, self._node, names)
        else:
            self._weight_T = np.array([value.get(task, 0.0) for task in self.tasks])

    def __call__(self, probability_XT: Array) -> Array:
        if not isinstance(self.value, str):
            weighed_X: Array = probability_XT @ self._weight_T
            return weighed_X
        columns = {task: probability_XT[..., t].astype(np.float64) for t, task in enumerate(self.tasks)}
        with np.errstate(all="ignore"):
            value_X = np.broadcast_to(self._node(columns), probability_XT.shape[:-1])
        return np.where(np.isfinite(value_X), value_X, LOWEST)

    def slope(self, probability_KT: Array) -> Array:
        """weight_T: by how much the value grows with each task, at these candidates' mean; weights as they were given.

        Rows of NaN, which the ranker did not see, do not count.
        """
        if not isinstance(self.value, str):
            return self._weight_T.copy()
        seen_KT = np.asarray(probability_KT, np.float64)[~np.isnan(probability_KT).any(axis=1)]
        step, mean_T = 1e-3, seen_KT.mean(axis=0) if len(seen_KT) else np.full(len(self.tasks), 0.5)
        around_2TT = mean_T + step * np.stack([np.eye(len(mean_T)), -np.eye(len(mean_T))])
        high_T, low_T = self(around_2TT)
        slope_T: Array = (high_T - low_T) / (2 * step)
        return slope_T


def tasks_of(value: Mapping[str, float] | str) -> list[str]:
    """The tasks that a value reads. Raises InputError for a text that is no formula."""
    return sorted(_parse(value)[1]) if isinstance(value, str) else list(value)


def _parse(text: str) -> tuple[Node, set[str]]:
    if len(text) > MAX_LENGTH:
        raise InputError(f"value formula has {len(text)} characters: write it with at most {MAX_LENGTH}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"value formula {text!r} is not a formula: write one as 'click * (1 + 4 * purchase)'") from error
    names: set[str] = set()
    node = _read(text, tree.body, names)
    if not names:
        raise InputError(f"value formula {text!r} reads no task: name at least one")
    return node, names


def _read(text: str, node: ast.expr, names: set[str]) -> Node:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool) and abs(number) <= 1e300:
            constant = np.float64(number)
            return lambda _: constant
        case ast.Name(id=name):
            names.add(name)
            return lambda columns: columns[name]
        case ast.BinOp(left, symbol, right) if type(symbol) in OPERATORS:
            apply, first, second = OPERATORS[type(symbol)], _read(text, left, names), _read(text, right, names)
            return lambda columns: apply(first(columns), second(columns))
        case ast.UnaryOp(ast.USub(), operand):
            inner = _read(text, operand, names)
            return lambda columns: -inner(columns)
        case ast.Call(ast.Name(id=name), arguments, []) if name in FUNCTIONS and len(arguments) == FUNCTIONS[name][1]:
            function, parts = FUNCTIONS[name][0], [_read(text, argument, names) for argument in arguments]
            return lambda columns: function(*(part(columns) for part in parts))
        case _:
            raise InputError(
                f"value formula {text!r} has {ast.unparse(node)!r}: use task names, numbers, + - * / **, parentheses, "
                "min(a, b), max(a, b), log1p(a) and sqrt(a)"
            )


def _check_finite(text: str, node: Node, names: set[str]) -> None:
    """Refuse what divides by a probability that may be 0, and its like: the formula is tried where all are 0, 1/2 or 1."""
    corners = itertools.islice(itertools.product((0.0, 1.0, 0.5), repeat=len(names)), MAX_CORNERS)
    for corner in corners:
        columns = {name: np.float64(number) for name, number in zip(sorted(names), corner, strict=True)}
        with np.errstate(all="ignore"):
            found = node(columns)  # type: ignore[arg-type]
        if isinstance(found, complex) or not np.isfinite(found):
            where = ", ".join(f"{name} is {number:g}" for name, number in columns.items())
            raise InputError(f"value formula {text!r} has no finite value where {where}: add a number to what it divides by")
