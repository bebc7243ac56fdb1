"""The report people decide from: one self-contained HTML page per issue.

``build`` takes tables and reports that are already read and returns the page. It loads nothing from anywhere
and holds no script; a Content-Security-Policy in the page forbids both.
"""

from coefvq.reporting.html.inputs import ReportInputs, Served
from coefvq.reporting.html.page import build, pictures, wanted_thumbnails

__all__ = ["ReportInputs", "Served", "build", "pictures", "wanted_thumbnails"]
