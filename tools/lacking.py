"""Install what the chapters need and this environment lacks; what is there stays as it is.

For a notebook that was opened alone, beside packages that are in use: `python tools/lacking.py`.
"""

import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needed(root: Path, extra: str = "chapters") -> list[Requirement]:
    """What the package and its extra depend on."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = [*map(Requirement, project["dependencies"])]
    for requirement in map(Requirement, project["optional-dependencies"][extra]):
        if requirement.name == project["name"]:
            found += [each for name in requirement.extras for each in needed(root, name)]
        else:
            found.append(requirement)
    return found


def main() -> None:
    here = {canonicalize_name(each.name): each.version for each in distributions() if each.name}
    wanted = {canonicalize_name(each.name): each for each in needed(Path(__file__).parents[1])}
    for name, requirement in wanted.items():
        if name in here and not requirement.specifier.contains(here[name], prereleases=True):
            sys.exit(f"{name} is {here[name]}; allowed: {requirement.specifier}")
    missing = [str(requirement) for name, requirement in wanted.items() if name not in here]
    if not missing:
        return
    print("Installing", ", ".join(missing))
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as kept:
        kept.writelines(f"{name}=={version}\n" for name, version in here.items())
        kept.flush()
        pip = [sys.executable, "-m", "pip", "install", "-q", "-c", kept.name, *missing]
        if subprocess.run(pip).returncode:
            sys.exit("pip could not install them beside what is here")


if __name__ == "__main__":
    main()
