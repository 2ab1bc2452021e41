"""What all tests share: the number of simulated histories, no silent skips in continuous integration, a second try
that begins from nothing, and signals that mean what they say, however the tests were started.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import pytest
import pytest_rerunfailures
from hypothesis import HealthCheck, settings

HEEDED = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD)
LOCAL = ("localhost", "127.0.0.1", "::1")

# How long an example takes is the machine's, not the code's.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """Begin as on any machine, whoever started the tests: every program that a test starts inherits it.

    Signals are heeded that shells ignore for what runs in the background (an interrupt would end nothing), new
    files may be read by the users that servers run as, and nobody asks a proxy for what is on this machine.
    """
    os.umask(0o022)
    for name in ("no_proxy", "NO_PROXY"):
        known = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join(dict.fromkeys([*known, *LOCAL]))
    for number in HEEDED:
        if signal.getsignal(number) is signal.SIG_IGN:
            usual = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
            signal.signal(number, usual)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEEDED)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=20, help="how many fault histories the simulation replays")


@pytest.fixture(scope="session")
def seeds(request: pytest.FixtureRequest) -> int:
    """How many fault histories to replay."""
    count: int = request.config.getoption("--seeds")
    return count


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, None]:
    """In continuous integration a skip is a failure: what could not run there was not shown.

    Not so for what no package brings: that is skipped there too, and said.
    """
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if item.get_closest_marker("unpackaged"):
        return
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in continuous integration: {report.longrepr}"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """End what the failed try shared with other tests before the next try (`--reruns`).

    The plugin keeps fixtures of modules and of the session for the next try, which then meets in a server what
    the first one left there.  Everything is made anew instead, also for the tests that follow.
    """
    if getattr(item, "execution_count", 1) < 2:
        return
    state = item.session._setupstate
    state.stack.update(pytest_rerunfailures.suspended_finalizers)
    pytest_rerunfailures.suspended_finalizers.clear()
    state.teardown_exact(None)
