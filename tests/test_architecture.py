"""The house's rule: imports go downward only, and the inference wing never touches the training world."""

import ast
import sys
from pathlib import Path

import pytest

import fer_tf

PACKAGE = Path(fer_tf.__file__).parent
FLOORS = {  # a module may import modules of lower floors and of its own wing
    "cli": 9,
    "grid": 8,
    "suite": 7,
    "session": 6,
    "summary": 5,
    "training": 4,
    "inference": 3,
    "data": 2,
    "zoo": 2,
    "plots": 1,
    "cards": 3,
    "pages": 1,
    "notebook": 0,
    "tables": 3,
    "terminal": 0,
    "calibration": 0,
    "card": 0,
    "faces": 0,
    "files": -1,
    "labels": 0,
    "paths": 0,
}
HEAVY = {"tensorflow", "keras", "torch", "jax", "transformers", "tf2onnx"}
FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_room_has_a_floor():
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert rooms == set(FLOORS)


def wing(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(path: Path, *, nested: bool):
    """Yield the dotted names that a file imports: everywhere, or only what runs when the module is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if nested else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downward(path):
    relative = path.relative_to(PACKAGE)
    here = relative.parts[0].removesuffix(".py")
    if here == "__init__":
        return
    for name in imports(path, nested=True):
        if name.startswith("fer_tf.") and wing(name) != here and wing(name) in FLOORS:
            assert FLOORS[wing(name)] < FLOORS[here], f"{relative} imports {name}, which is not below it"


@pytest.mark.parametrize(("room", "shared"), [("cli", "options"), ("plots", "shared")])
def test_files_of_commands_and_of_figures_lean_on_one_file_of_their_own(room, shared):
    for path in (PACKAGE / room).glob("[!_]*.py"):
        own = {name.rsplit(".", 1)[0] for name in imports(path, nested=True) if wing(name) == room}
        assert own <= {f"fer_tf.{room}.{shared}"} - {f"fer_tf.{room}.{path.stem}"}, path.name


def test_the_command_line_starts_with_what_every_command_needs():
    for path in (PACKAGE / "cli").glob("[!_]*.py"):
        names = {".".join(name.split(".")[:2]) for name in imports(path, nested=False)}
        needed = {"typer", "fer_tf.cli", "fer_tf.tables", "fer_tf.terminal"}
        assert {name for name in names if name.split(".")[0] not in sys.stdlib_module_names} <= needed, path.name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_training_world_imports_keras(path):
    relative = path.relative_to(PACKAGE)
    at_import = {name.split(".")[0] for name in imports(path, nested=False)}
    allowed = HEAVY if relative.parts[0] in ("zoo", "training") and relative.name != "__init__.py" else set()
    assert not at_import & (HEAVY - allowed)


def test_tensorflow_stays_on_its_two_islands():
    users = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if any(name.split(".")[0] in ("tensorflow", "tf2onnx") for name in imports(path, nested=True))
    }
    assert users == {"training/export.py", "training/explain.py"}
