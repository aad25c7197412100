"""A backend for joblib whose workers are gateways::

    import execnet_c.joblib, joblib

    execnet_c.joblib.register()
    with joblib.parallel_config("execnet_c", specs=["popen", "ssh=host"]):
        joblib.Parallel()(joblib.delayed(function)(item) for item in items)

joblib calls what stands below: configure() at the beginning of each Parallel(...)(...), submit() for each batch of calls,
abort_everything() when one has failed, terminate() at the end.
"""

import os
import weakref
from concurrent.futures import Future

from .pool.executor import GatewayPoolExecutor

try:
    from joblib.parallel import (
        AutoBatchingMixin,
        FallbackToBackend,
        ParallelBackendBase,
        SequentialBackend,
        register_parallel_backend,
    )
except ModuleNotFoundError:
    raise ImportError("execnet_c.joblib needs joblib: pip install 'execnet_c[joblib]'") from None

OF_OTHERS = {"context", "max_nbytes", "mmap_mode", "prefer", "require", "temp_folder", "verbose"}  # joblib says these to any backend
JOIN = 5.0  # seconds that workers have to end after a failure


def register(name="execnet_c", make_default=False):
    """Have joblib know the backend by this name."""
    register_parallel_backend(name, GatewayBackend, make_default=make_default)


class GatewayBackend(AutoBatchingMixin, ParallelBackendBase):
    """options: those of GatewayPoolExecutor, but for max_workers, which is n_jobs.

    Without n_jobs, and for -1, there is a worker for each of specs or of group, or for each CPU; more workers take turns with the
    specs. n_jobs=1 is done here, by joblib itself. Workers stay for the next call, and end with this object, which
    parallel_config() holds.
    """

    default_n_jobs = -1
    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    uses_threads = supports_sharedmem = False

    def __init__(self, nesting_level=None, inner_max_num_threads=None, **options):
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._options = options
        self._executor = self._made_with = None
        self._new(None)  # says what makes no sense

    def _new(self, workers):
        """An executor; nothing is started yet."""
        options = dict(self._options, max_workers=workers)
        if self.inner_max_num_threads is not None:
            options["worker_options"] = {**(options.get("worker_options") or {}), "threads": self.inner_max_num_threads}
        return GatewayPoolExecutor(**options)

    def _workers(self, n_jobs):
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        there = self._new(n_jobs if n_jobs > 0 else None)._max_workers
        return there if n_jobs > 0 else max(there + 1 + n_jobs, 1)

    def effective_n_jobs(self, n_jobs):
        if n_jobs in (None, 1):
            return 1
        somewhere = any(self._options.get(name) is not None for name in ("specs", "group"))
        return max(self._workers(n_jobs), 2 if somewhere else 1)  # joblib does 1 here: not where the user wants it

    def configure(self, n_jobs=1, parallel=None, **options):
        self._options.update((name, value) for name, value in options.items() if name not in OF_OTHERS)
        jobs = self.effective_n_jobs(n_jobs)
        if jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = weakref.proxy(parallel)  # which holds this
        made_with = self._workers(n_jobs), self.inner_max_num_threads, dict(self._options), os.getpid()
        if self._made_with != made_with or self._executor._pool.broken is not None:
            self._executor, self._made_with = self._new(made_with[0]), made_with
        return jobs

    def submit(self, func, callback=None):
        try:
            future = self._executor.submit(func)
        except Exception as exc:  # joblib waits for each job that it has noted
            future = Future()
            future.set_exception(exc)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def apply_async(self, func, callback=None):
        """submit(), as joblib calls it before 1.5."""
        return self.submit(func, callback)

    def retrieve_result_callback(self, future):
        return future.result()

    def abort_everything(self, ensure_ready=True):
        self._executor._pool.abort("joblib.Parallel was aborted", JOIN)
        if ensure_ready:
            self._executor = self._new(self._made_with[0])

    def terminate(self):
        self.reset_batch_stats()
