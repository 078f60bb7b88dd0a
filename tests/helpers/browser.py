"""A real Chromium without a window, for tests of pages. Debian has it; nothing is fetched from elsewhere."""

from __future__ import annotations

import base64
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.helpers.cluster import debian
from tests.helpers.cluster.processes import ClusterError

PROGRAMS = {"chromium": "chromium", "chromedriver": "chromium-driver"}
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",  # containers have a small one
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
NARROW, WIDE = 390, 1280
"""Widths of a phone and of a laptop, in pixels."""
HEIGHT = 800
PAPER = 1032
"""Width of A4 across without its margins of 12 mm, in pixels."""


class NoBrowser(RuntimeError):
    """There is no Chromium here, and it cannot be installed."""


class Browser:
    """One tab. `open` shows a page; the others ask about it."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def open(self, page: Path, width: int = WIDE, dark: bool = False, paper: bool = False) -> None:
        """Show a file in a window of this width, on a light or dark system, or as it is printed."""
        size = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        media = {"media": "print" if paper else "", "features": [scheme]}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self._driver.get_log("browser")  # of the page before
        self._driver.get(page.resolve().as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a script returns in the page."""
        return self._driver.execute_script(script, *arguments)

    def problems(self) -> list[str]:
        """What the page wrote to the console since it was opened: errors and refused loads, too."""
        return [entry["message"] for entry in self._driver.get_log("browser")]

    def screenshot(self, path: Path) -> None:
        self._driver.save_screenshot(str(path))

    def pdf(self) -> bytes:
        """The page as it is printed, on the paper that its style asks for."""
        options = {"preferCSSPageSize": True, "printBackground": True}
        return base64.b64decode(self._driver.execute_cdp_cmd("Page.printToPDF", options)["data"])


@contextlib.contextmanager
def started() -> Iterator[Browser]:
    """A browser with an empty profile. Raises NoBrowser where there is none, and none can be installed."""
    try:
        debian.install(PROGRAMS)
    except (ClusterError, OSError) as error:
        raise NoBrowser(str(error)) from error
    programs = {name: shutil.which(name, path=debian.SYSTEM_PATH) for name in PROGRAMS}
    if missing := [name for name, path in programs.items() if path is None]:
        raise NoBrowser(f"no {missing[0]} on this machine")
    from selenium import webdriver

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(programs["chromium"])
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(executable_path=str(programs["chromedriver"]))
        driver = webdriver.Chrome(options=options, service=service)
        try:
            yield Browser(driver)
        finally:
            driver.quit()
