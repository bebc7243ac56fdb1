"""coefvq: cascaded multimodal video classification, after the paper COEF-VQ.

Importing the package has no effects and pulls in no heavy library; see ``coefvq.__main__`` for the
commands and ``docs/architecture.md`` for the map.
"""

__version__ = "0.1.0"
