"""From a fresh clone to a working pellucid:  python3.11 bootstrap.py demo|test|soak|check|bench|docs|mutants|clean

Makes .venv, installs torch and then the project with what the task needs, and runs the task. A second run installs
nothing: a stamp, written last, remembers what was installed from which pyproject.toml and constraints.txt.
`make TASK` is the same. Standard library only, and readable by older Pythons, so that they can say they are too old.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(HERE, ".venv")
STAMP = os.path.join(VENV, "pellucid.json")
PYTHON = os.path.join(VENV, "Scripts" if os.name == "nt" else "bin", "python")
LITTER = [".venv", ".pytest_cache", ".ruff_cache", ".mypy_cache", ".hypothesis", "build", "dist", "docs/_build"]

# task: the extras it needs, and what the environment's Python then runs
TASKS = {
    "demo": (["demo"], [["-m", "pellucid", "demo"]]),
    "test": (["demo", "data", "docs", "dev"], [["-m", "pytest", "-n", "auto", "--dist", "loadfile", "-m", "not soak"]]),
    "soak": (["demo", "data", "docs", "dev"], [["-m", "pytest", "-m", "soak"]]),
    "check": (
        ["demo", "data", "dev"],
        [["-m", "ruff", "check", "."], ["-m", "mypy"], ["-m", "pytest", "-m", "not slow and not soak"]],
    ),
    "bench": (["bench"], [["-m", "benchmarks"]]),
    "docs": (["demo", "docs"], [["-m", "sphinx", "-E", "-W", "-b", "html", "docs", "docs/_build/html"]]),
    "mutants": (["demo", "data", "dev"], [["tests/mutants.py"]]),
}


def main(arguments):
    """Run one task; its exit code. What follows the task's name goes to the last command of the task."""
    task = arguments[0] if arguments else "demo"
    os.chdir(HERE)
    if task == "clean":
        return clean()
    if task not in TASKS:
        fail(f"unknown task {task!r}; expected one of: {', '.join([*TASKS, 'clean'])}.")
    if sys.version_info < (3, 11):
        return hand_over(arguments)
    extras, commands = TASKS[task]
    install(extras)
    commands = [*commands[:-1], commands[-1] + arguments[1:]]
    return next((code for code in map(run, commands) if code), 0)


def run(command):
    """The environment's Python on `command`; its exit code."""
    return subprocess.call([PYTHON, *command])


def hand_over(arguments):
    """This Python is too old: let a newer one do it, if one is installed and starts."""
    for name in ["python3.11", "python3.12", "python3.13", "python3.14"]:
        newer = shutil.which(name)
        if newer and subprocess.call([newer, "-c", ""], stderr=subprocess.DEVNULL) == 0:
            return subprocess.call([newer, __file__, *arguments])
    fail(f"this is Python {sys.version.split()[0]} and pellucid needs 3.11 or newer; install python3.11 and try again.")


def install(extras):
    """Bring .venv up to date with pyproject.toml, constraints.txt and the extras asked for."""
    installed = read_stamp()
    if installed is not None and set(extras) <= set(installed):
        return
    extras = sorted({*extras, *(installed or [])})
    if not works(PYTHON):
        say("making .venv")
        if subprocess.call([sys.executable, "-m", "venv", "--clear", VENV]):
            fail("could not make .venv; install this Python's venv module (on Debian: apt install python3-venv).")
    pip("torch", "torch")
    pip(f"pellucid and its extras {', '.join(extras)}", "--editable", f".[{','.join(extras)}]")
    with open(STAMP + ".tmp", "w") as file:
        json.dump({"made_from": fingerprint(), "extras": extras}, file)
    os.replace(STAMP + ".tmp", STAMP)


def works(python):
    """Whether there is an environment whose pip starts (an interrupted run may have left half of one)."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return os.path.exists(python) and subprocess.call([python, "-m", "pip", "--version"], **quiet) == 0


def pip(what, *arguments):
    say(f"installing {what}")
    if run(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", "constraints.txt", *arguments]):
        fail(f"could not install {what}; pip says why above; mend that and run the same command again.")


def read_stamp():
    """The extras that are installed; None where .venv is absent, half made or out of date."""
    try:
        with open(STAMP) as file:
            stamp = json.load(file)
        return stamp["extras"] if stamp["made_from"] == fingerprint() else None
    except (OSError, ValueError, KeyError):
        return None


def fingerprint():
    """What an installation depends on, as one hash."""
    digest = hashlib.sha256()
    for name in ["pyproject.toml", "constraints.txt"]:
        with open(name, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def clean():
    """Remove what the tasks made, except trained runs."""
    for name in LITTER:
        shutil.rmtree(name, ignore_errors=True)
    return 0


def say(line):
    print(f"pellucid: {line}", flush=True)


def fail(sentence):
    sys.exit(f"pellucid: {sentence}")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
