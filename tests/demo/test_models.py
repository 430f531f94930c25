"""The second size of the demo's model: made once, whole, and to be read by whoever runs the demo."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import gguf
import pytest

from demo import models


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_second_model_may_be_read_by_another_user(tiny: Path, tmp_path: Path, umask: int) -> None:
    """The image's builder is root, its user is not."""
    made = tmp_path / "cache" / "made.gguf"
    before = os.umask(umask)
    try:
        models.requantize(tiny, made, lambda line: None)
    finally:
        os.umask(before)
    assert stat.S_IMODE(made.stat().st_mode) == 0o644
    assert {tensor.name for tensor in gguf.GGUFReader(made).tensors} == {
        tensor.name for tensor in gguf.GGUFReader(tiny).tensors
    }
    assert list(made.parent.iterdir()) == [made]
