"""The kernels of the order book are compiled before a run begins, not within its event loop."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import io
from rich.console import Console
from bot.market import book_kernel
from bot.warming import compile_kernels
said = io.StringIO()
assert not book_kernel.update.signatures
compile_kernels(Console(file=said), patience={patience})
assert book_kernel.update.signatures and book_kernel.apply.signatures
print(said.getvalue())
"""


@pytest.mark.parametrize(("patience", "told"), [(0.0, True), (300.0, False)])
def test_the_kernels_are_there_and_a_long_wait_is_explained(patience: float, *, told: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(patience=patience)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1], env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("Compiling the order book's kernels (once)" in done.stdout) is told
