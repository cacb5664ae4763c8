"""Opening a page in the user's browser."""

import os
import sys


def open_page(address: str) -> None:
    """Open a page in a window, where there are windows; a browser in the terminal would take it over."""
    import webbrowser

    windows = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")))
    if windows:
        webbrowser.open(address)  # False where there is no browser: the address has been printed
