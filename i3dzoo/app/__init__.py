"""The local web page of `i3dzoo app`: videos, mistakes, reports and FVD in a browser.

Gradio, the extra `app`, is imported when the page is served.
"""

from i3dzoo.app.settings import Settings

__all__ = ["Settings"]
