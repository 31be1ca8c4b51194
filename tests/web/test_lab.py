"""JupyterLab, as `make lab` starts it: two chapters are opened, read and run."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, expect

from tools import lab_copies

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.xdist_group("lab")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a JupyterLab with the copies; the chapters run in the profile smoke."""
    folder, home = ROOT / "lab", tmp_path_factory.mktemp("lab")
    lab_copies.write_copies(folder, lab_copies.glued(), {})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PICOJEPA_PROFILE": "smoke", "PICOJEPA_CACHE": str(home / "cache"), "HOME": str(home)}
    command = [sys.executable, "-m", "jupyterlab", f"--notebook-dir={ROOT}", f"--port={port}", "--no-browser"]
    command += ["--allow-root", "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
    with (home / "log").open("w") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as server:
        address = f"http://127.0.0.1:{port}"
        for _ in range(120):
            try:
                urlopen(f"{address}/api/status").read()
                break
            except OSError:
                time.sleep(0.5)
        yield address
        server.terminate()


@pytest.mark.parametrize("chapter", ["02_masking", "learns"])
def test_a_chapter_can_be_read_and_run(lab: str, browser: Browser, chapter: str) -> None:
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    page.goto(f"{lab}/lab/tree/lab/{chapter}.ipynb?reset")
    notebook = page.locator(".jp-Notebook").first
    expect(notebook.locator("h1").first).to_be_visible(timeout=90_000)
    text = notebook.inner_text()
    assert not re.search(r"\{(glue|ref|numref|cite|term)[:\w]*\}", text)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    idle = page.locator(".jp-NotebookPanel .jp-Notebook-ExecutionIndicator[data-status='idle']")
    page.wait_for_timeout(3_000)
    expect(idle).to_be_attached(timeout=240_000)
    page.wait_for_timeout(1_000)
    expect(idle).to_be_attached(timeout=240_000)
    assert notebook.locator(".jp-OutputArea-output[data-mime-type*='error']").count() == 0
    assert page.locator(".jp-OutputArea-output img, .jp-OutputArea-output svg").count() > 0
    page.close()


def test_the_clone_stays_clean(lab: str) -> None:
    """What Lab saves lies in the folder of the copies, which git does not see."""
    listed = subprocess.run(["git", "check-ignore", "lab"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert listed.stdout.strip() == "lab"
