"""Notebooks before they run: their parameters, read strictly, and the values that each is given."""

import ast
import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

KINDS = {"str": str, "int": int, "float": float, "bool": bool}
BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One line of a parameters cell."""

    name: str
    kind: type  # str, int, float or bool
    default: str | int | float | bool
    help: str

    def coerce(self, value) -> str | int | float | bool:
        """Return `value` as `kind`; text is read as on a command line ("3", "false"). Raises ValueError."""
        try:
            if isinstance(value, str):
                return BOOLEANS[value.strip().lower()] if self.kind is bool else self.kind(value)
            if type(value) is self.kind or (self.kind is float and type(value) is int):
                return self.kind(value)
        except (KeyError, ValueError):
            pass  # said below, in one sentence for every kind
        raise ValueError(f"parameter {self.name} must be {self.kind.__name__}, such as {self.default!r}; got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Notebook:
    """A notebook and what became of it.

    title       its first markdown heading
    cells       how many it has
    parameters  name -> what its parameters cell declares
    name        of its executed copy and of its page
    status      waiting, running, done, failed or interrupted
    error       why it failed
    """

    path: Path
    title: str
    cells: int
    parameters: dict[str, Parameter]
    status: str = "waiting"
    seconds: float = 0.0
    error: str = ""
    name: str = ""

    def __post_init__(self):
        object.__setattr__(self, "name", self.name or self.path.stem)


def read_notebook(path: Path) -> Notebook:
    """Return the notebook at `path`, not run yet.

    Raises ValueError where there is not exactly one cell tagged `parameters`, or where a line of it is anything but an
    annotated literal with a trailing comment.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown").splitlines()
        tagged = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a notebook: {error!r}") from error
    title = next((line.lstrip("# ") for line in prose if line.startswith("#")), path.stem)
    if len(tagged) != 1:
        raise ValueError(f"{path.name} has {len(tagged)} cells tagged `parameters`; the suite needs exactly one")
    try:
        parameters = [_parameter(statement, tagged[0]) for statement in ast.parse(tagged[0]).body]
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path.name}, parameters cell: {error}") from error
    return Notebook(path=path, title=title, cells=len(cells), parameters={known.name: known for known in parameters})


def _parameter(statement: ast.stmt, source: str) -> Parameter:
    line = source.splitlines()[statement.end_lineno - 1].encode()  # columns of the syntax tree count bytes
    comment = line[statement.end_col_offset :].decode().strip(" #")
    match statement:
        case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id=kind), value=ast.expr() as value):
            default = ast.literal_eval(value)
            if comment and type(default) is KINDS.get(kind):
                return Parameter(name=name, kind=KINDS[kind], default=default, help=comment)
    raise ValueError(
        "expected lines such as `epochs: int = 3  # passes over the train split`, of type str, int, float or bool; "
        f"got `{line.decode()}`"
    )


def match_parameters(notebooks: Iterable[Notebook], given: dict) -> dict[Path, dict]:
    """Return for every notebook's path the subset of `given` that it declares, in the declared types.

    Raises ValueError for a name that no notebook declares (`run_dir` is the suite's own) and a value of a wrong type.
    """
    known = sorted({name for notebook in notebooks for name in notebook.parameters} - {"run_dir"})
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"no notebook has a parameter {name!r}{hint}; known are {', '.join(known) or 'none'}")
    return {
        notebook.path: {name: known.coerce(given[name]) for name, known in notebook.parameters.items() if name in given}
        for notebook in notebooks
    }
