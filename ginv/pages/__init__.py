"""What the chapters of the book share: their parameters, figures and tables."""

from ginv.pages.settings import Settings, refuse_unknown

__all__ = ["Settings", "refuse_unknown"]
