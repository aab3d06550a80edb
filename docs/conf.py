"""How the site is built: ``make docs`` runs Sphinx over this folder and fails on any warning."""

import sys
import tomllib
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS / "_ext"))

_project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = _project["name"]
author = "featurecache contributors"
project_copyright = author
release = version = _project["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "registry_tables",
]
exclude_patterns = ["_build", "examples"]
html_theme = "furo"
html_title = project
html_show_sphinx = False

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

napoleon_numpy_docstring = False
# Attributes are described once, by the class: fields of dataclasses would else be there twice.
napoleon_use_ivar = True
autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_use_type_comments = False
python_use_unqualified_type_names = True
add_module_names = False

# Every link and every reference of a page has to lead somewhere. Types in signatures do not: most
# are numpy's or torch's, whose sites a build without a network cannot look into.
nitpick_ignore_regex = [("py:.*", r".*")]
