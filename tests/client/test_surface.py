"""What `import mondrian` gives, and what it does not load."""

import inspect
import subprocess
import sys

import mondrian

_IMPORT = """
import sys
before = set(sys.modules)
import mondrian
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(loaded - set(sys.stdlib_module_names)))
"""

_OF_GRPC = ("grpc", "typing_extensions", "cython_runtime", "_cython")


def test_importing_the_client_loads_only_grpc_and_protobuf() -> None:
    """A fresh interpreter that imports the client has loaded nothing of the server or of its dependencies."""
    output = subprocess.run([sys.executable, "-c", _IMPORT], check=True, capture_output=True, text=True, timeout=60)
    loaded = {name for name in output.stdout.split() if not name.startswith(_OF_GRPC)}
    assert loaded == {"google", "mondrian"}


def test_all_names_exactly_what_is_public() -> None:
    """`__all__` is sorted, and holds every public name but modules."""
    public = {name for name, value in vars(mondrian).items() if name[0] != "_" and not inspect.ismodule(value)}
    assert set(mondrian.__all__) == public
    assert mondrian.__all__ == sorted(mondrian.__all__, key=lambda name: (not name.isupper(), name))


def test_every_public_class_says_what_it_is() -> None:
    """Each public class has a docstring of its own."""
    undocumented = [name for name in mondrian.__all__ if not inspect.getdoc(getattr(mondrian, name))]
    assert undocumented == []
