"""Shards as Prefect tasks, on the cluster of the flow that asks."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.api.reports import Reports
from flows.work.hands import Future
from flows.work.shard_runner import running_on
from flows.work.shard_work import Work, blames_no_device
from tasks.shards import ShardResult


@task(persist_result=False, cache_policy=NO_CACHE)
def process_shard(work: Work) -> ShardResult:
    """One shard of one stage as a Prefect task."""
    return work.do()


class OfTheFlow:
    """The workers of the flow that asks, as `flows.work.hands.Hands`: each shard is a task of the flow."""

    def __init__(self) -> None:
        self.progress = Reports()

    def expect(self, shards: int) -> None:
        """So many shards will come together."""
        running_on().expect(shards)

    def submit(self, stage: str, work: Work, retries: int) -> Future:
        """Begin a shard as a task."""
        attempt = process_shard.with_options(
            name=f"{stage}-shard", retries=retries, retry_delay_seconds=1, retry_jitter_factor=1
        )
        future: Future = attempt.submit(work)
        return future

    def look(self) -> str | None:
        """See that workers are there."""
        return running_on().look()

    def ended_its_workers(self, error: BaseException, work: Work) -> bool:
        """Whether work failed because every worker that had it died, with no device to blame."""
        return blames_no_device(error, work, lambda: running_on().client)
