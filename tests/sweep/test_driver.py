"""What becomes of jobs that fail: judged by the kind of event, with a worker that does as told."""

import pickle
from collections import Counter

import pytest
from tiny_sweep import UNIT_FILES

from vidcfg.sweep.driver import ModelLoadError, SweepStopped, drive
from vidcfg.sweep.executor import Event, InProcess
from vidcfg.sweep.jobs import Job
from vidcfg.sweep.store import Store

GRID = "grid={guidance.scale: [1.0, 2.0, 3.0, 4.0, 5.0]}"


class Told:
    """An executor in which `fate(unit key, how often the unit was tried, job)` decides.

    A job ends as the first of its units that does not go well; the units before it are done.
    """

    num_workers, evaluations = 3, 1

    def __init__(self, store, fate):
        self.store, self.fate = store, fate
        self.waiting, self.tries, self.jobs = [], Counter(), []
        self.is_closed = False

    def start(self):
        pass

    def free(self):
        return self.num_workers - len(self.waiting)

    def submit(self, job):
        assert self.free() > 0
        self.waiting.append(job)
        self.jobs.append(job)

    def wait(self, timeout):
        # The last first: events come in any order.
        return self._events(self.waiting.pop()) if self.waiting else []

    def _events(self, job):
        """Of each unit that goes well one, then that of the job."""
        results = []
        last = self._end(job, results)
        units = [Event(job, "worker", "unit", (result,)) for result in results]
        return [*units, last]

    def _end(self, job, results):
        for key in job.units:
            self.tries[key] += 1
            kind = self.fate(key, self.tries[key], job)
            if kind != "done":
                return Event(job, "worker", kind.partition(":")[0], message=kind)
            status = "done" if self.store.commit(key, UNIT_FILES) else "cached"
            results.append({"key": key, "status": status})
        count = len(results) * self.evaluations
        facts = {"units": list(job.units), "executed": count, "planned": count, "seconds": 0.1}
        self.store.write_json(f"jobs/{job.id}.json", facts)
        return Event(job, "worker", "done", tuple(results), seconds=0.1)

    def close(self):
        self.is_closed = True


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture
def run(plan, store):
    """`run(fate) -> (books, executor, plan)`."""

    def go(fate, *overrides, num_workers=3, **how):
        made = plan(*overrides, f"workers.num={num_workers}")
        executor = Told(store, fate)
        executor.num_workers = num_workers
        return drive(made, store, executor, poll=0.0, **how), executor, made

    return go


def keys_of(plan):
    return [unit.key for unit in plan.units]


def test_every_unit_is_made_once_when_all_goes_well(run, store):
    books, executor, plan = run(lambda key, tries, job: "done")
    assert store.done_keys(keys_of(plan)) == set(keys_of(plan))
    assert set(executor.tries.values()) == {1}
    assert (books.done, books.left, books.failed) == (len(plan.units), 0, {})
    assert executor.is_closed


def test_the_books_hold_nothing_for_a_unit_that_is_done(run):
    """The driver's memory grows with the table of units in the plan, and with nothing else."""
    few, _, small = run(lambda key, tries, job: "done", "seeds=100-101")
    many, _, large = run(lambda key, tries, job: "done", "seeds=200-229")
    assert len(large.units) > 10 * len(small.units)
    for books in (few, many):
        # The executor of this file counts no model evaluations, which each job is told for.
        books.mismatches.clear()
    assert len(pickle.dumps(many)) - len(pickle.dumps(few)) < 64


def test_a_unit_that_always_fails_is_reported_and_all_others_are_made(run, store, plan):
    bad = plan().units[5].key
    books, executor, made = run(lambda key, tries, job: "error: boom" if key == bad else "done")
    assert set(books.failed) == {bad}
    assert store.done_keys(keys_of(made)) == set(keys_of(made)) - {bad}
    facts = store.read_json(f"failed/{bad}.json")
    assert (facts["kind"], facts["message"]) == ("error", "error: boom")
    assert facts["cell"] == made.by_key[bad].cell
    assert facts["log"] == f"logs/{bad}.log"
    # Once, and then max_retries = 2 times; the other unit of its job was done the first time.
    assert facts["attempts"] == executor.tries[bad] == 3


def test_units_that_were_done_before_their_job_failed_are_not_made_again(run, plan):
    bad = plan().units[5].key
    _, executor, _ = run(lambda key, tries, job: "error" if key == bad else "done")
    assert all(count == 1 for key, count in executor.tries.items() if key != bad)


def test_a_job_whose_worker_was_lost_is_handed_out_whole_once_more(run):
    lost = []

    def fate(key, tries, job):
        if not lost and len(job.units) > 2:
            lost.append(job)
            return "lost"
        return "done"

    books, executor, plan = run(fate, GRID, num_workers=1)
    again = [job for job in executor.jobs if set(job.units) <= set(lost[0].units)]
    assert [job.units for job in again] == [lost[0].units] * 2
    assert books.done == len(plan.units)
    assert not books.failed


def test_units_count_as_they_are_finished_and_once_whatever_becomes_of_their_job(run, store):
    """A job of five: a unit of another driver, two of ours, a lost worker, then the rest."""
    seen, other = [], []

    def fate(key, tries, job):
        if len(job.units) == 5 and not other:
            other.append(key)
            store.commit(key, UNIT_FILES)
        return "lost" if len(job.units) == 5 and key == job.units[3] else "done"

    def look(books):
        running = sum(len(job.units) for job in books.running.values())
        finished = books.reported.total()
        seen.append((books.done + books.cached, running - finished))

    books, _, made = run(fate, GRID, num_workers=1, on_change=look)
    counts = [there for there, _ in seen]
    assert counts == sorted(counts)
    assert set(counts) == set(range(len(made.units) + 1))
    assert min(running for _, running in seen) == 0
    assert (books.done, books.cached, books.reported) == (len(made.units) - 1, 1, {})


def test_a_unit_that_kills_its_worker_is_poisoned_after_its_retries(run, plan, store):
    bad = plan().units[2].key
    books, executor, made = run(
        lambda key, tries, job: "lost" if key == bad else "done", "workers={max_retries: 1}"
    )
    assert set(books.failed) == {bad}
    assert store.read_json(f"failed/{bad}.json")["kind"] == "lost"
    # Counted once the units that were made with it are done, wherever it stands among them.
    assert books.attempts[bad] == 2
    assert (bad,) in [job.units for job in executor.jobs]
    assert store.done_keys(keys_of(made)) == set(keys_of(made)) - {bad}


def test_out_of_memory_makes_jobs_smaller_then_raises_their_level(run, plan):
    """Two units fit; those of scale 5 need level 1."""

    def fate(key, tries, job):
        is_hungry = plan.by_key[key].cell == "scale-5"
        return "done" if len(job.units) <= 2 and (job.level == 1 or not is_hungry) else "oom"

    plan = plan(GRID)
    books, executor, _ = run(fate, GRID, num_workers=1)
    assert not books.failed
    assert books.done == len(plan.units)
    assert max(len(job.units) for job in executor.jobs) > 2
    raised = {key for job in executor.jobs if job.level for key in job.units}
    assert {plan.by_key[key].cell for key in raised} == {"scale-5"}


def test_one_unit_without_memory_fails_after_the_last_level(run, plan, store):
    bad = plan().units[1].key
    books, executor, _ = run(lambda key, tries, job: "oom" if key == bad else "done")
    assert [job.level for job in executor.jobs if job.units == (bad,)] == [0, 1, 2]
    assert store.read_json(f"failed/{bad}.json")["kind"] == "oom"


def test_a_model_that_cannot_be_loaded_stops_at_once(run):
    tried = []

    def fate(key, tries, job):
        tried.append(job)
        return "model: no such folder"

    with pytest.raises(ModelLoadError, match="no such folder"):
        run(fate)
    assert len(tried) == 1


def test_a_full_store_stops_at_once(plan, store):
    class Full(Told):
        def _end(self, job, results):
            self.tries[job.id] += 1
            return Event(job, "worker", "error", message="StoreError: the store is full.")

    executor = Full(store, None)
    with pytest.raises(SweepStopped, match=r"^the store is full\.$"):
        drive(plan(), store, executor, poll=0.0)
    assert sum(executor.tries.values()) == 1
    assert executor.is_closed


def test_of_what_is_done_only_failures_that_there_are_are_removed(run, store, monkeypatch):
    *_, plan = run(lambda key, tries, job: "done")
    failed, removed = f"failed/{plan.units[3].key}.json", []
    store.write_json(failed, {"kind": "lost"})
    store.write_json(f"failed/{'0' * 64}.json", {"kind": "lost"})
    monkeypatch.setattr(store, "remove", removed.append)
    run(lambda key, tries, job: "done")
    assert removed == [failed]


def test_a_unit_that_failed_before_is_tried_again_by_the_next_run(run, plan, store):
    bad = plan().units[5].key
    run(lambda key, tries, job: "error" if key == bad else "done")
    books, executor, made = run(lambda key, tries, job: "done")
    assert executor.tries == {bad: 1}
    assert store.read(f"failed/{bad}.json") is None
    assert (books.cached, books.done) == (len(made.units) - 1, 1)


def test_units_that_another_driver_made_meanwhile_count_as_there(run, plan, store):
    other = plan().units[4].key

    def fate(key, tries, job):
        if key == other:
            store.commit(other, UNIT_FILES)
        return "done"

    books, _, made = run(fate)
    assert books.cached == 1
    assert books.done == len(made.units) - 1


def test_fewer_evaluations_than_planned_are_told_of_a_unit_alone(run):
    # The executor above notes one evaluation for each unit, which is too few.
    books, executor, plan = run(lambda key, tries, job: "done", num_workers=1)
    alone = {job.id for job in executor.jobs if len(job.units) == 1}
    assert 0 < len(alone) < len(executor.jobs)
    assert {line.split(":")[0].removeprefix("job ") for line in books.mismatches} == alone
    assert "were planned" in books.mismatches[0]


def test_more_evaluations_than_planned_are_told_of_every_job(run, monkeypatch):
    monkeypatch.setattr(Told, "evaluations", 1000)
    books, executor, _ = run(lambda key, tries, job: "done", num_workers=1)
    assert len(books.mismatches) == len(executor.jobs)


def test_the_cost_that_another_driver_notes_for_the_same_job_is_no_mismatch(plan, store):
    """It began later, found the first units there, and was done before we looked."""

    class Beside(Told):
        def _end(self, job, results):
            event = super()._end(job, results)
            facts = {
                "units": ["another", *job.units[1:]],
                "executed": 1,
                "planned": 1,
                "seconds": 0.1,
            }
            self.store.write_json(f"jobs/{job.id}.json", facts)
            return event

    made = plan("workers.num=1")
    books = drive(made, store, Beside(store, lambda key, tries, job: "done"), poll=0.0)
    assert books.done == len(made.units)
    assert books.mismatches == []


class Sleepy:
    def load(self, job):
        pass

    def run(self, job):
        import time

        time.sleep(30)


def test_in_this_process_a_hanging_job_is_stopped_at_its_time_limit():
    executor = InProcess(Sleepy(), time_limit=0.05)
    executor.submit(Job("a", ("x", "y")))
    (event,) = executor.wait(1.0)
    assert event.kind == "timeout"
    assert "took longer than 0.1 s" in event.message
