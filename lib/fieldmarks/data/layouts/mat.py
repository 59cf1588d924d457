"""MATLAB files, read in a process of their own: on some damaged ones scipy's reader crashes, and
would take the notebook with it.

Run as a script, this prints one line of JSON for each file: its plain arrays, texts and structures,
or the error. It imports no torch, so that it starts in half a second."""

import json
import subprocess
import sys
from pathlib import Path

SECONDS = 120  # for each file; the largest official one takes two


def read_mat(*files: Path) -> list[dict]:
    """The variables of each file: a structure array is {field: values}, another array its nested
    list (a plain value where it has one element). Raises ValueError, naming the file, where one is
    not readable."""
    contents = []
    for file, content in zip(files, read_all(files), strict=True):
        if isinstance(content, str):
            raise ValueError(f"{file}: not a readable .mat file ({content})")
        contents.append(content)
    return contents


def read_all(files) -> list[dict | str]:
    """As `read_mat`, with what is wrong in the place of a file that is not readable."""
    contents: list[dict | str] = []
    while rest := files[len(contents) :]:
        command = [sys.executable, "-P", __file__, *map(str, rest)]
        fault = "the reader crashed"
        try:
            # No shared input: a kernel's own is not for a child to read.
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=SECONDS * len(rest),
                check=False,
            )
            output = done.stdout
        except subprocess.TimeoutExpired as late:
            output, fault = late.stdout or b"", f"it takes more than {SECONDS} seconds"
        lines = output.split(b"\n")[:-1]
        contents += [json.loads(line) for line in lines]
        if len(lines) < len(rest):  # the one at fault; the rest is for another process
            contents.append(fault)
    return contents


def _variables(file: str) -> dict | str:
    try:
        from scipy.io import loadmat

        found = loadmat(file, squeeze_me=True)
        return {name: _plain(value) for name, value in found.items() if name[:2] != "__"}
    except Exception as error:  # scipy raises half a dozen kinds on a damaged file
        text = " ".join(str(error).split())[:200]
        return "".join(c if c.isprintable() else "?" for c in text) or type(error).__name__


def _plain(value):
    """What JSON can hold, of what loadmat gives."""
    names = getattr(getattr(value, "dtype", None), "names", None)
    if names:
        rows = value.reshape(-1)
        return {name: [_plain(row) for row in rows[name]] for name in names}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value if isinstance(value, (int, float, str)) else str(value)


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(json.dumps(_variables(path)), flush=True)
