"""A real Chromium that opens a report from the disk, clicks on everything, and tells what went wrong."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver

OPTIONS = (
    "--headless",
    "--no-sandbox",  # root has none in Chromium
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)
INNER = ("data:", "blob:", "chrome:", "about:")


class Browser:
    """One Chromium; `open` forgets what was told before."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for word in (*OPTIONS, f"--user-data-dir={profile}"):
            options.add_argument(word)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
        self.driver.set_script_timeout(120)
        self.page = ""

    def open(self, page: Path) -> None:
        """Open a file."""
        self.errors(), self.requests()
        self.page = page.resolve().as_uri()
        self.driver.get(self.page)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page; it may wait."""
        wrapped = (
            "const done = arguments[arguments.length - 1];"
            f"(async (...given) => {{ {script} }})(...arguments).then(done, (error) => done('failed: ' + error));"
        )
        return self.driver.execute_async_script(wrapped, *arguments)

    def press(self, key: str, question: str) -> Any:
        """Press a key where the focus is, and return the answer of a script after it."""
        self.driver.switch_to.active_element.send_keys(key)
        return self.run(question)

    def columns_cut_off(self, width: int) -> list[str]:
        """Return the tables that a window of this width does not show whole, or `page` where that itself is wider."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        try:
            return list(self.run(CUT_OFF))
        finally:
            self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def errors(self) -> list[str]:
        """Return the errors that the page wrote to the console since the last time."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def requests(self) -> list[str]:
        """Return what the page asked for since the last time, beside itself and what it holds."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(INNER) and url.partition("#")[0] != self.page]


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Start a Chromium, and end it."""
    browser = Browser(profile)
    try:
        yield browser
    finally:
        browser.driver.quit()


CUT_OFF = """
for (const item of document.querySelectorAll('details')) item.open = true;
const isCut = (item) => item.scrollWidth > item.clientWidth;
const tables = [...document.querySelectorAll('.table')].filter(isCut).map((item) => item.ariaLabel);
return isCut(document.documentElement) ? [...tables, 'page'] : tables;
"""

CLICK_THROUGH_OURS = """
const wait = () => new Promise((go) => setTimeout(go, 0));
let clicks = 0;
const press = async (item) => { item.click(); clicks += 1; await wait(); };
for (const item of document.querySelectorAll('summary')) { await press(item); await press(item); }
for (const item of document.querySelectorAll('details')) item.open = true;
for (const item of document.querySelectorAll('nav a, th button')) await press(item);
for (const item of document.querySelectorAll('th button')) await press(item);
const dialog = document.querySelector('dialog');
for (const item of document.querySelectorAll('.gallery button')) {
  await press(item);
  const image = dialog.querySelector('img');
  await image.decode();
  if (!dialog.open || !image.naturalWidth) return 'failed: a picture does not open';
  for (const id of ['after', 'before', 'close']) await press(document.getElementById(id));
  if (dialog.open) return 'failed: a picture does not close';
}
for (const item of document.images) { item.loading = 'eager'; if (item.src) await item.decode(); }
return clicks;
"""

# Snakemake's page: a menu whose links lead into deeper menus; the trail of links above it leads back.
CLICK_THROUGH_SNAKEMAKE = """
const wait = () => new Promise((go) => setTimeout(go, 25));
const seen = (item) => item.offsetParent !== null;
const links = () => [...document.querySelectorAll('a')].filter((item) => seen(item) && item.href.endsWith('#'));
const isTrail = (item) => item.className.includes('hover:text-emerald-600');
const trail = () => links().filter(isTrail);
const menu = () => links().filter((item) => !isTrail(item) && !item.className.includes('bg-transparent'));
let clicks = 0;
const press = async (item, name) => {
  item.click();
  clicks += 1;
  await wait();
  if (!document.body.innerText.trim()) throw new Error('the page is white after ' + name);
};
const walk = async (depth) => {
  const level = trail().length;
  for (let place = 0; place < menu().length; place += 1) {
    const name = menu()[place].innerText || 'an entry of ' + trail().map((item) => item.innerText).join(' / ');
    await press(menu()[place], name);
    if (trail().length > level) {
      if (depth < 4) await walk(depth + 1);
      await press(trail()[level - 1], 'going back from ' + name);
    }
  }
};
for (let tries = 0; tries < 400 && !menu().length; tries += 1) await wait();
await walk(0);
return clicks;
"""
