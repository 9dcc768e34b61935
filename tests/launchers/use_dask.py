"""Two jobs that hold a worker each, and a sum over them."""

from dask.distributed import Client
from dask_jobqueue import SLURMCluster

if __name__ == "__main__":
    cluster = SLURMCluster(
        queue="main", cores=1, processes=1, memory="512MB", walltime="00:05:00", interface="lo",
        scheduler_options={"dashboard_address": None},
    )
    cluster.scale(jobs=2)
    with Client(cluster) as client:
        client.wait_for_workers(2, timeout=120)
        squares = client.map(lambda n: n * n, range(100))
        assert client.submit(sum, squares).result(timeout=120) == 328350
    cluster.close()
