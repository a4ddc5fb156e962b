"""The site: ``nox -s docs`` builds it into ``dist/site``, with warnings as errors and without a network."""

import sys
from pathlib import Path

from reblurkit import __version__

sys.path.insert(0, str(Path(__file__).parent / "_site"))  # this site's own directives

project = "reblurkit"
author = "The reblurkit developers"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "captions",
    "public_names",
    "options",
]
exclude_patterns = ["_site"]

myst_heading_anchors = 4  # a link to a #heading is the same here and in a repository's browser

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False  # what torch and Lightning say of a method is theirs
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes are a list; each by itself would stand there twice

# Names of this package must lead somewhere; those of others have no page that could be reached without a network.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", "(?!reblurkit).*"),
    ("py:.*", r"reblurkit\.(core|models\.flow|data\.images\.ImageKind)\b.*"),  # not public, named in passing
]

html_theme = "furo"
html_title = f"reblurkit {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = html_show_copyright = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
