"""A headless browser for tests of HTML pages: screenshots, network requests and console messages."""
import io
import json
import os
import shutil
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
ARGUMENTS = (
    '--headless=new', '--disable-dev-shm-usage', '--disable-gpu', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--force-color-profile=srgb', '--hide-scrollbars', '--host-resolver-rules=MAP * ~NOTFOUND')


def find_browser() -> tuple[str, str]:
    """Return the paths of a browser and its driver; without them skip the test, or fail in CI."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    driver = shutil.which('chromedriver')
    if browser and driver:
        return browser, driver
    reason = (f'needs a browser ({" or ".join(BROWSERS)}) and chromedriver on the PATH. On Debian: '
              'apt-get install chromium chromium-driver')
    if os.environ.get('CI') == 'true':
        pytest.fail(reason)
    pytest.skip(reason)


class Browser:
    """A browser that shows one page at a time with a given size and colour scheme.

    Args:
        driver (webdriver.Chrome): The Selenium driver.
    """

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, page: Path, width: int = 1280, height: int = 900, scheme: str = 'light') -> None:
        """Open a file and clear the logs."""
        self._cdp('Emulation.setDeviceMetricsOverride', width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 600)
        self._cdp('Emulation.setEmulatedMedia',
                  features=[dict(name='prefers-color-scheme', value=scheme)])
        self.driver.get('about:blank')
        for kind in ('browser', 'performance'):
            self.driver.get_log(kind)
        self.driver.get(page.as_uri())

    def console(self) -> list[str]:
        """Return the console messages since the page was opened."""
        return [entry['message'] for entry in self.driver.get_log('browser')]

    def requests(self) -> list[str]:
        """Return the URLs that were requested since the page was opened, except `data:` URLs."""
        events = [json.loads(entry['message'])['message']
                  for entry in self.driver.get_log('performance')]
        urls = [event['params']['request']['url'] for event in events
                if event['method'] == 'Network.requestWillBeSent']
        return [url for url in urls if not url.startswith('data:')]

    def run(self, script: str, *arguments):
        """Run JavaScript that is not part of the page and return its value."""
        return self.driver.execute_script(script, *arguments)

    def box(self, selector: str) -> tuple[int, ...]:
        """Return the position of an element on the page: left, top, right, bottom in pixels."""
        return tuple(round(value) for value in self.run(
            'const b = document.querySelector(arguments[0]).getBoundingClientRect();'
            'return [b.left + scrollX, b.top + scrollY, b.right + scrollX, b.bottom + scrollY]',
            selector))

    def screenshot(self) -> np.ndarray:
        """Return a screenshot of the whole page, uint8 (H, W, 3)."""
        data = self._cdp('Page.captureScreenshot', format='png', captureBeyondViewport=True)['data']
        return np.asarray(Image.open(io.BytesIO(b64decode(data))).convert('RGB'))

    def _cdp(self, command: str, **parameters):
        return self.driver.execute_cdp_cmd(command, parameters)


@contextmanager
def headless_browser(profile: Path) -> Iterator[Browser]:
    """Start a browser that cannot reach other machines.

    Args:
        profile (Path): An empty folder for the browser profile.
    """
    binary, driver_path = find_browser()
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    root = ['--no-sandbox'] if os.geteuid() == 0 else []  # as root it does not start with a sandbox
    for argument in (*ARGUMENTS, f'--user-data-dir={profile}', *root):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    driver = webdriver.Chrome(options=options, service=Service(driver_path))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
