"""What the chapters of the book share: their parameters, figures, tables and checks."""

from ginv.pages.prose import expect
from ginv.pages.settings import Settings, refuse_unknown

__all__ = ["Settings", "expect", "refuse_unknown"]
