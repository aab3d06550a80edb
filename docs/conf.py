"""Sphinx configuration: ``make docs`` builds the site and fails on any warning."""

import atexit
import os
import shutil
import sys
import tempfile
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
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "api_summary",
    "command_reference",
    "metrics_schema",
    "registry_tables",
]
exclude_patterns = ["_build", "examples"]
html_theme = "furo"
html_title = project
html_show_sphinx = False

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

# Notebooks run offline, write to temporary folders only, and an error in one fails the build.
_scratch = tempfile.mkdtemp(prefix="featurecache-docs-")
atexit.register(shutil.rmtree, _scratch, ignore_errors=True)
os.environ["HF_HUB_OFFLINE"] = "1"
for _variable in ("XDG_CACHE_HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
    os.environ[_variable] = str(Path(_scratch, _variable.lower()))
for _variable in [name for name in os.environ if name.startswith("FEATURECACHE_")]:
    del os.environ[_variable]
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 600  # seconds per cell; a busy machine may need minutes
nb_execution_raise_on_error = True
nb_merge_streams = True

napoleon_numpy_docstring = False
# The class docstring describes attributes; otherwise fields of dataclasses would appear twice.
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_use_type_comments = False
python_use_unqualified_type_names = True
add_module_names = False

# Links and references of pages must resolve. Types in signatures need not: most belong to numpy or
# torch, whose inventories an offline build cannot read.
nitpick_ignore_regex = [("py:.*", r".*")]
