"""
Takes ``docs/report.png``: which links of a run's actor live, as ``rlx2 report`` draws them in Chromium.

``python -m benchmarks.picture FOLDER``; the picture there is of the first 8,000 steps of

    rlx2 train --algo rlx2td3 --env HalfCheetah-v5 --n-timesteps 20000 --seed 0
"""

import argparse
import base64
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.chromium import chromium

PICTURE = Path(__file__).parents[1] / "docs/report.png"
WIDTH = 1180  # of a page in a repository, and more than that of a phone
BOX = """(() => {
  const titles = [...document.querySelectorAll('section h2')]
  const section = titles.find((title) => title.textContent === 'Which links live').closest('section')
  const {left, right, top} = section.getBoundingClientRect()
  const {bottom} = section.querySelector('figure').getBoundingClientRect()
  return {x: left - 20, y: scrollY + top + 8, width: right - left + 40, height: bottom - top + 14, scale: 1}
})()"""


def main() -> None:
    """Take it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.picture", description="Take docs/report.png anew.")
    parser.add_argument("run", metavar="FOLDER", help="of the run, as logs/rlx2td3/HalfCheetah-v5_1")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page_file = Path(folder, "report.html")
        subprocess.run([sys.executable, "-m", "sb3_rlx2", "report", args.run, "-o", page_file], check=True)
        with chromium(folder) as page:
            page.open(page_file.as_uri())
            page.show(WIDTH, "light")
            taken = page.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=page.evaluate(BOX))
    PICTURE.write_bytes(base64.b64decode(taken["data"]))


if __name__ == "__main__":
    main()
