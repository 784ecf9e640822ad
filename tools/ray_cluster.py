"""A search on a real Ray cluster of three nodes on this machine, one of which is killed in the middle.

    .venv/bin/python -m tools.ray_cluster [--out FOLDER]

The search of `tools/small_search.py` runs once in one process and once on the cluster. When the file of evaluations
says that a third is finished, one node's processes get SIGKILL. Prints what ran there, and whether the choice and every
score are those of the undisturbed search and no finished evaluation was run again; exit status 1 where that is not so.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from compress.evaluations import Counts
from compress.workers.on_ray import ENVIRONMENT
from tools import small_search as search

STORE_BYTES = 80 * 2**20


def main() -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/ray_cluster"))
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    project = search.recipe(options.out)
    prepared, calm, hit = (options.out / name for name in ("prepared", "undisturbed", "killed"))
    search.finish(project, prepared, "serial", until="prepare")
    for copy in (calm, hit):
        shutil.copytree(prepared, copy)
    search.finish(project, calm, "serial")
    scores = search.scores(calm)
    print(f"undisturbed, one process: {len(scores)} evaluations, chose {search.choice(calm)}", flush=True)

    nodes = start(3)
    try:
        driver = subprocess.Popen(search.command(project, hit, f"ray:{nodes.address}"), stdout=subprocess.DEVNULL)
        before = wait_for(driver, hit, len(scores) // 3)
        victim = next((node for node in nodes.more if trials_on(node)), nodes.more[0])
        running = trials_on(victim)
        nodes.remove_node(victim, allow_graceful=False)
        print(f"node killed with {before.finished} evaluations finished; {running} trials ran there", flush=True)
        status = driver.wait()
    finally:
        nodes.shutdown()
    after, _ = search.evaluations(hit)
    same = status == 0 and search.choice(hit) == search.choice(calm) and search.scores(hit) == scores
    good = same and after.again == 0 and after.claimed == after.finished == len(scores)
    print(
        f"on the cluster: {after.finished} evaluations finished of {after.claimed} claimed, {after.again} "
        f"finished ones run again; same choice and scores: {same}"
    )
    return 0 if good else 1


def start(count: int) -> Any:
    """A cluster of `count` nodes with one core each; `more` are those that may be killed."""
    os.environ.update(ENVIRONMENT)
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.more = [cluster.add_node(**node) for _ in range(count - 1)]
    return cluster


def wait_for(driver: subprocess.Popen[bytes], out: Path, finished: int) -> Counts:
    """Until so many evaluations are finished and some run."""
    while driver.poll() is None:
        if (out / search.FILE).exists():
            counts, _ = search.evaluations(out)
            if counts.finished >= finished and counts.running:
                return counts
        time.sleep(0.1)
    raise SystemExit(f"the search ended before, with status {driver.returncode}")


def trials_on(node: Any) -> int:
    """Workers of the node that are in the middle of a task; Ray names their processes so."""
    raylets = [process.pid for kind, process in node.live_processes() if kind == "raylet"]
    below = [child for pid in raylets for child in psutil.Process(pid).children(recursive=True)]
    return sum("ray::_work" in title(child) for child in below)


def title(process: psutil.Process) -> str:
    """What the process calls itself."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


if __name__ == "__main__":
    sys.exit(main())
