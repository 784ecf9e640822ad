"""The folder is the registry: what a package's folder holds is what there is."""

import difflib
import importlib
import importlib.util
import pkgutil
from types import ModuleType

from compress.errors import RecipeError


def names(package: str) -> list[str]:
    """The names of a package's files, sorted, without importing any of them. Names that start with "_" are private.

    Raises:
        ModuleNotFoundError: there is no such package.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"{package!r} is not a package", name=package)
    found = pkgutil.iter_modules(list(spec.submodule_search_locations))
    return sorted(module.name for module in found if not module.ispkg and not module.name.startswith("_"))


def load(package: str, name: str) -> ModuleType:
    """Import the file called `name`. A broken file raises its own error.

    Raises:
        RecipeError: the package has no file of that name; says which there are, and which is closest.
    """
    require(package, name)
    return importlib.import_module(f"{package}.{name}")


def require(package: str, name: str) -> None:
    """Refuse a name that no file has, without importing anything.

    Raises:
        RecipeError: as `load`.
    """
    there = names(package)
    if name not in there:
        folder = package.rpartition(".")[2]
        raise RecipeError(
            f"{folder} has nothing called {name!r}; there are {', '.join(there) or 'none'}",
            fix=suggestion(
                name, there, otherwise=f"use one of these names, or add {package.replace('.', '/')}/<name>.py"
            ),
        )


def suggestion(name: str, there: list[str], otherwise: str) -> str:
    """One sentence that names what was probably meant; `otherwise` where nothing comes close."""
    # A dash for an underscore, or capitals, are not another word.
    plain = {candidate.lower().replace("-", "_"): candidate for candidate in there}
    close = difflib.get_close_matches(name.lower().replace("-", "_"), plain, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(plain[match] for match in close)}?" if close else otherwise
