"""Pages of reports, read as HTML and opened in a real browser."""

import shutil
import subprocess
from html.parser import HTMLParser

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


class Page(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.raw = [], [], {}
        self.feed(text)
        self.text = " ".join(" ".join(self.words).replace("\N{NARROW NO-BREAK SPACE}", " ").split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        kind = self.tags[-1][0] if self.tags else ""
        (self.raw.setdefault(kind, []) if kind in {"script", "style"} else self.words).append(data)


def open_in_browser(path, folder):
    """The page after its scripts ran, and what the browser's console said."""
    command = [
        *(
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-component-update",
        ),
        *(
            "--disable-background-networking",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1200,3000",
        ),
        *(f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=10000"),
        *("--dump-dom", path.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
