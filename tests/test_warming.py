"""The kernels of a live run are compiled before it begins, not within its event loop."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import io, sys
from rich.console import Console
from bot.warming import compile_kernels
from bot.market import book_kernel
from strategies import labels
from strategies.features import kernel, normaliser
from strategies.learning import inference
told = io.StringIO()
called = (book_kernel.update, book_kernel.apply, kernel.advance, normaliser.normalise,
          labels.advance, inference._run_steps)
assert not any(entry.signatures for entry in called)
compile_kernels(Console(file=told), patience={patience})
assert all(entry.signatures for entry in called)
assert "torch" not in sys.modules
print(told.getvalue())
"""


@pytest.mark.parametrize(("patience", "told"), [(0.0, True), (300.0, False)])
def test_the_kernels_are_there_and_a_long_wait_is_explained(patience: float, *, told: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(patience=patience)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1], env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("Compiling the kernels (once)" in done.stdout) is told
