"""What the files around the library say agrees with each other."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
OWN = {"fieldmarks", "fieldguide", "fieldlab"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIRED = PROJECT["dependencies"] + sum(PROJECT["optional-dependencies"].values(), [])


def name_of(requirement):
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-")


def test_conda_environment_says_the_same_as_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [item for item in environment["dependencies"] if isinstance(item, str)]
    pip = next(item for item in environment["dependencies"] if isinstance(item, dict))["pip"]
    assert f"python{PROJECT['requires-python']}" in conda
    assert sorted(item for item in pip if not item.startswith("-")) == sorted(REQUIRED)


def test_the_lock_pins_every_requirement_with_hashes_and_names_no_address():
    lock = (ROOT / "requirements.lock").read_text()
    pinned = set(re.findall(r"^([a-z0-9._-]+)==", lock, re.MULTILINE))
    for requirement in REQUIRED:
        assert name_of(requirement) in pinned, requirement
    assert "://" not in lock
    for entry in re.split(r"\n(?=[a-z0-9])", lock):
        if "==" in entry.split("\n")[0]:
            assert "--hash=sha256:" in entry, entry.split("\n")[0]


def test_the_lock_is_not_older_than_the_requirements():
    lock = (ROOT / "requirements.lock").read_text()
    for requirement in map(Requirement, REQUIRED):
        for version in re.findall(rf"^{name_of(requirement.name)}==([^ \\]+)", lock, re.MULTILINE):
            assert requirement.specifier.contains(version), (
                f"{requirement} but the lock has {version}: run make lock"
            )


def test_every_import_of_the_library_is_a_declared_requirement():
    owners, declared = packages_distributions(), {name_of(r) for r in PROJECT["dependencies"]}
    for file in (ROOT / "lib").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module]
            for module in {name.split(".")[0] for name in modules} - sys.stdlib_module_names - OWN:
                assert {name_of(owner) for owner in owners[module]} & declared, (
                    f"{file.name} imports {module}"
                )
