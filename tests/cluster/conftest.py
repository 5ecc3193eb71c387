"""With the variable MUST nothing is skipped in silence: a test that cannot run here fails, and says why."""

import os

import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    _failed_if_skipped((yield).get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report():
    _failed_if_skipped((yield).get_result())


def _failed_if_skipped(report):
    if report.skipped and os.environ.get("MUST"):
        report.outcome = "failed"
        report.longrepr = f"MUST is set, but skipped: {report.longrepr}"
