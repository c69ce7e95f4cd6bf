import pytest

from lightmuseg.cohort.ray_workers import require_answer, shares
from lightmuseg.errors import InputError

CPUS, GPUS = {"CPU": 8.0, "memory": 1e9}, {"CPU": 8.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("nodes", "size", "gpus", "expected"),
    [
        # GPUs a worker, workers, cores a worker
        ([CPUS], None, None, (0.0, 1, 8)),
        ([CPUS, CPUS], None, None, (0.0, 2, 8)),
        ([CPUS], 3, None, (0.0, 3, 2)),
        ([CPUS, {"CPU": 2.0}], 5, None, (0.0, 5, 2)),
        ([CPUS, {"CPU": 1.0}], 2, None, (0.0, 2, 4)),
        ([GPUS], None, None, (1.0, 2, 4)),
        ([GPUS, GPUS], None, 0.5, (0.5, 8, 2)),
        ([GPUS], None, 0.1, (0.1, 8, 1)),
        ([GPUS], None, 0.4, (0.4, 4, 2)),
        ([GPUS, CPUS], None, None, (1.0, 2, 4)),
        ([GPUS], 2, 0.0, (0.0, 2, 4)),
        ([GPUS, {"GPU": 4.0}], None, None, (1.0, 2, 4)),
    ],
)
def test_workers_get_what_the_nodes_have(nodes, size, gpus, expected):
    assert shares(nodes, size, gpus) == expected


@pytest.mark.parametrize(
    ("nodes", "size", "gpus"), [([CPUS], 9, None), ([CPUS], None, 0.5), ([GPUS], 3, None), ([], None, None)]
)
def test_more_workers_than_a_cluster_holds_are_refused(nodes, size, gpus):
    with pytest.raises(InputError, match=f"--slides-at-once {size or 1}: .* give fewer"):
        shares(nodes, size, gpus)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "[::1]:9", "no-such-host.invalid:6379", "127.0.0.1:99999999"])
def test_a_cluster_that_is_not_there_is_refused(address):
    with pytest.raises(InputError, match=r"\A--address .*: cannot be joined .* 'ray start' printed\.\Z"):
        require_answer(address)


def test_other_kinds_of_address_are_left_to_ray():
    for address in ("", "auto", "ray://127.0.0.1:9"):
        require_answer(address)
