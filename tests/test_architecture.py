"""Imports point one way, and torch stays in the rooms that train."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = [
    ("bot.core", "bot.settings"),
    ("bot.market", "strategies", "risk"),
    ("bot.engine", "bot.execution"),
    ("bot.exchange", "bot.storage", "bot.ops", "bot.research", "bot.dashboard"),
    (
        "bot.app",
        "bot.auditing",
        "bot.care",
        "bot.control",
        "bot.ending",
        "bot.reporting",
        "bot.live",
        "bot.rehearsal",
        "bot.warming",
        "bot.wiring",
    ),
    ("bot.cli", "bot.commands", "bot.__main__"),
]
TORCH_ROOMS = "strategies.learning"


def modules() -> Iterator[tuple[str, Path]]:
    for package in ("bot", "strategies", "risk"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def layer(module: str) -> int | None:
    for level, names in enumerate(LAYERS):
        if any(module == name or module.startswith(name + ".") for name in names):
            return level
    return None


def test_every_module_has_a_layer() -> None:
    homeless = [name for name, _ in modules() if layer(name) is None and name != "bot"]
    assert homeless == []


def test_no_module_imports_from_a_layer_above_its_own() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, path in modules()
        for target in imports(path)
        if (own := layer(name)) is not None and (other := layer(target)) is not None and other > own
    ]
    assert wrong == []


def test_strategies_and_risk_do_not_know_each_other() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, path in modules()
        for target in imports(path)
        if {name.split(".")[0], target.split(".")[0]} == {"strategies", "risk"}
    ]
    assert wrong == []


def test_torch_is_imported_by_the_learning_rooms_only() -> None:
    wrong = [
        name
        for name, path in modules()
        if not name.startswith(TORCH_ROOMS)
        and any(target.split(".")[0] == "torch" for target in imports(path))
    ]
    assert wrong == []


def test_a_process_that_trades_does_not_load_what_only_reports_and_training_need() -> None:
    script = (
        "import sys, bot.app; "
        "sys.exit(','.join({'torch', 'pandas', 'plotly', 'sklearn'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "module", ["bot.cli", "bot.__main__", "bot.engine.engine", "bot.storage.database", "bot.research.report"]
)
def test_a_process_that_only_looks_or_trades_does_not_load_torch(module: str) -> None:
    script = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
