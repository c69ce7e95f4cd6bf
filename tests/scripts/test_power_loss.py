import json
import subprocess
import sys

import pytest


@pytest.mark.nightly
@pytest.mark.parametrize("words", [("--moments", "30"), ("--moments", "5", "--cohort")])
def test_after_a_power_failure_every_result_is_whole_or_reported(root, words):
    command = [sys.executable, "-W", "ignore", "scripts/fuzz/power_loss.py", "--seed", "1", *words]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode == 2:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["whole"] == 3 * said["moments"]
    assert said["left over"] == 0
