"""A machine is a folder with what Linux would say in /proc and /sys."""

from dataclasses import replace
from pathlib import Path

import pytest

from profiles import machine
from profiles.machine import State, disturbances

QUIET = State(seconds=10.0, own_seconds=1.0, cores=(0,), busy_s=5.0)
LATER = replace(QUIET, seconds=11.0, own_seconds=2.0, busy_s=6.0)  # one second of one core, all of it ours


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text + "\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(
        tmp_path,
        "proc/stat",
        "cpu  100 0 50 900 0 0 0 300 0 0\ncpu0 60 10 30 400 5 1 2 200 0 0\ncpu1 40 0 20 500 0 0 0 100",
    )
    put(tmp_path, "proc/loadavg", "0.25 0.5 0.7 1/200 1234")
    put(tmp_path, "proc/self/cgroup", "4:cpu,cpuacct:/box/inner\n3:memory:/box\n0::/unified")
    put(tmp_path, "sys/fs/cgroup/cpu/box/inner/cpu.stat", "nr_periods 10\nnr_throttled 0\nthrottled_time 0")
    put(tmp_path, "sys/fs/cgroup/cpu/box/cpu.stat", "nr_periods 10\nnr_throttled 7\nthrottled_time 5")
    put(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "2400000")
    put(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq", "3600000")
    put(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave")
    put(tmp_path, "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "3")
    put(tmp_path, "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", "4")
    put(tmp_path, "sys/class/hwmon/hwmon2/oc1_event_cnt", "2")
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", "56500")
    put(tmp_path, "sys/class/thermal/thermal_zone1/temp", "-256000")  # a sensor that is off
    put(tmp_path, "sys/class/thermal/cooling_device0/type", "pwm-fan")
    put(tmp_path, "sys/class/thermal/cooling_device0/cur_state", "3")
    put(tmp_path, "sys/class/thermal/cooling_device1/type", "gpu-throttle-alert")
    put(tmp_path, "sys/class/thermal/cooling_device1/cur_state", "1")
    put(tmp_path, "sys/class/thermal/cooling_device2/type", "intel_powerclamp")
    put(tmp_path, "sys/class/thermal/cooling_device2/cur_state", "-1")
    return tmp_path


def test_everything_is_read(root: Path) -> None:
    found = machine.read([0], root)
    assert found.load == 0.25
    assert found.quota_stops == 7  # of the group around this one: it stops what is inside
    assert found.overheated == 7
    assert found.over_current == 2
    assert found.hottest_c == 56.5
    assert found.cooling == ("gpu-throttle-alert",)
    assert (found.clock_mhz, found.highest_mhz, found.governor) == (2400.0, 3600.0, "powersave")
    assert machine.setting(found) == "governor powersave, clock 2400 of at most 3600 MHz"
    # user 60 + nice 10 + system 30 + irq 1 + softirq 2 + steal 200 ticks, 100 a second; idle and waiting are not work
    assert found.busy_s == pytest.approx(3.03)
    assert found.stolen_s == 3.0


def test_work_on_the_other_half_of_a_core_is_seen(root: Path) -> None:
    put(root, "sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0-1")
    assert machine.read([0], root).beside_s == pytest.approx(1.6)  # of core 1: user 40, system 20, stolen 100 ticks
    assert machine.read([0, 1], root).beside_s is None  # both are its own


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    found = machine.read([0], tmp_path)
    assert (found.load, found.busy_s, found.quota_stops, found.clock_mhz, found.hottest_c) == (None,) * 5
    assert machine.setting(found) == ""
    assert disturbances(found, found) == ()


def test_the_second_kind_of_control_groups(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "0::/system.slice/a.service")
    put(tmp_path, "sys/fs/cgroup/system.slice/a.service/cpu.stat", "usage_usec 5\nnr_throttled 2")
    assert machine.read([0], tmp_path).quota_stops == 2


def test_a_quiet_machine_says_nothing() -> None:
    assert disturbances(QUIET, LATER) == ()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {"own_seconds": 1.4}, "other processes took 60% of the time"),
        ({"beside_s": 2.0}, {"beside_s": 2.3}, "other halves of its physical cores were busy for 30%"),
        ({"quota_stops": 3}, {"quota_stops": 5}, "quota stopped it 2 times"),
        ({"overheated": 0}, {"overheated": 9}, "slowed down 9 times because of heat"),
        ({"over_current": 1}, {"over_current": 2}, "drew too much current"),
        ({}, {"cooling": ("cpu-throttle-alert",)}, "cooling held the clocks down: cpu-throttle-alert"),
        ({"clock_mhz": 3000.0}, {"clock_mhz": 2000.0}, "went from 3000 to 2000 MHz"),
        ({}, {"hottest_c": 97.0}, "97 degrees"),
        ({}, {"load": 4000.0}, "load average was 4000"),
        ({"stolen_s": 0.0}, {"stolen_s": 5000.0}, "virtual machine kept"),
    ],
)
def test_each_disturbance_is_said(before: dict[str, object], after: dict[str, object], said: str) -> None:
    found = disturbances(replace(QUIET, **before), replace(LATER, **after))
    assert any(said in sentence for sentence in found), found


def test_a_counter_that_was_reset_is_no_disturbance() -> None:
    assert disturbances(replace(QUIET, overheated=9), replace(LATER, overheated=0)) == ()
