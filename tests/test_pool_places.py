"""How many workers a pool has: as many as the affinity and the cgroup allow."""

import os

import pytest

from execnet_c.pool import limits

pytestmark = pytest.mark.any_core


def cgroups(tmp_path, own, **files):
    """limits._quota() of a process whose /proc/self/cgroup says `own`."""
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        path = tmp_path / "root" / name.replace("__", "/").replace("cpu_", "cpu.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return limits._quota(str(tmp_path / "own"), str(tmp_path / "root"))


def test_version_2(tmp_path):
    assert cgroups(tmp_path, "0::/a/b\n", a__b__cpu_max="150000 100000\n") == 1.5
    assert cgroups(tmp_path, "0::/a/b\n", a__b__cpu_max="max 100000\n") is None


def test_a_group_above_may_allow_less(tmp_path):
    assert cgroups(tmp_path, "0::/a/b\n", a__b__cpu_max="400000 100000\n", a__cpu_max="200000 100000\n") == 2


def test_in_a_container_the_groups_own_files_are_at_the_root(tmp_path):
    assert cgroups(tmp_path, "0::/\n", cpu_max="300000 100000\n") == 3


def test_version_1(tmp_path):
    own = "12:cpu,cpuacct:/a\n3:memory:/a\n"
    files = {"cpu,cpuacct__a__cpu_cfs_quota_us": "50000\n", "cpu,cpuacct__a__cpu_cfs_period_us": "100000\n"}
    assert cgroups(tmp_path, own, **files) == 0.5
    assert cgroups(tmp_path, own, **{**files, "cpu,cpuacct__a__cpu_cfs_quota_us": "-1\n"}) is None


@pytest.mark.parametrize("own", ["", "nonsense\n", "0::/not/there\n"])
def test_what_says_nothing_limits_nothing(tmp_path, own):
    assert cgroups(tmp_path, own) is None


@pytest.mark.parametrize("quota, count", [(None, 8), (0.2, 1), (1.5, 2), (2, 2), (100, 8)])
def test_the_smaller_number_counts_rounded_up(monkeypatch, quota, count):
    monkeypatch.setattr(limits, "_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert limits.cpus() == count


def test_the_affinity_counts():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert limits.cpus() == 1
    finally:
        os.sched_setaffinity(0, before)
