"""A whole seed in-process: selection, early stop, resume, and refusals."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ada2i import checkpoint, storage
from ada2i.errors import ConfigError, ConflictError, DivergenceError, IntegrityError, PreemptedError
from ada2i.inference.models import load_checkpoint
from ada2i.inference.predict import predict_split
from ada2i.loader.chunks import MappedShards
from ada2i.loader.split_data import SplitData
from ada2i.model.amw import SkillFusion
from ada2i.records import EpochRecord, SeedResult
from ada2i.training import fit as fitting
from ada2i.training.fit import fit
from ada2i.training.metrics import METRICS
from ada2i.training.schedule import set_rate
from ada2i.training.state import start
from ada2i.training.status import StepKey
from ada2i.training.step import StepReport, train_step
from ada2i.training.task import Task
from tests.unit.training.small import Listener, tiny_config, tiny_task


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fit")


@pytest.fixture(scope="module")
def whole(base: Path) -> tuple[Task, SeedResult, Listener]:
    """One uninterrupted run."""
    task, listener = tiny_task(base, "whole"), Listener()
    return task, fit(task, listener), listener


def without_clock(history: tuple[EpochRecord, ...]) -> list[dict[str, Any]]:
    return [record.model_dump(exclude={"seconds", "utterances_per_second"}) for record in history]


def naive_scores(task: Task, uri: str) -> tuple[float, float]:
    """Weighted F1 and accuracy of a checkpoint on dev, by loops over utterances."""
    labels, probabilities = predict_split(load_checkpoint(uri), task.dev, batch_dialogues=7)
    pairs = list(zip(labels.tolist(), probabilities.argmax(axis=1).tolist(), strict=True))
    weighted = 0.0
    for c in {truth for truth, _ in pairs}:
        hits = sum(pair == (c, c) for pair in pairs)
        said, support = sum(guess == c for _, guess in pairs), sum(truth == c for truth, _ in pairs)
        weighted += support / len(pairs) * (2 * hits / (said + support))
    return weighted, sum(truth == guess for truth, guess in pairs) / len(pairs)


def test_every_epoch_is_recorded_and_reported(whole: tuple[Task, SeedResult, Listener]) -> None:
    task, result, listener = whole
    assert listener.epochs == [1, 2, 3, 4]
    assert listener.first_steps == 1
    assert [record.step for record in result.history] == [3, 6, 9, 12]  # 18 dialogues, 7 at a time
    assert [set(record.coefficient.values()) == {1.0} for record in result.history] == [True, False, False, False]
    assert result.history[-1].classification_loss < result.history[0].classification_loss
    assert {metric.name for metric in METRICS} <= set(
        result.history[-1].model_dump()
    )  # every listed metric is measured
    assert not result.stopped_early
    assert SeedResult.load(storage.join(task.uri, "result.json")) == result


def test_the_first_best_epoch_on_dev_is_selected(whole: tuple[Task, SeedResult, Listener]) -> None:
    task, result, _ = whole
    scores = [record.dev_weighted_f1 for record in result.history]
    assert result.best_epoch == 1 + scores.index(max(scores))
    assert result.checkpoint_uri == checkpoint.checkpoint_uri(task.folder.best, 3 * result.best_epoch)
    weighted, accuracy = naive_scores(task, result.checkpoint_uri)
    assert weighted == pytest.approx(max(scores), abs=1e-9)
    assert result.dev.weighted_f1 == pytest.approx(weighted, abs=1e-9)
    assert result.dev.accuracy == pytest.approx(accuracy, abs=1e-9)


def test_equal_scores_keep_the_first(base: Path) -> None:
    still = {"training__learning_rate": 1e-7, "training__early_stopping_epochs": 2, "training__plateau_epochs": 0}
    task, listener = tiny_task(base, "still", **still), Listener()
    result = fit(task, listener)
    assert len({record.dev_weighted_f1 for record in result.history}) == 1
    assert result.best_epoch == 1
    assert listener.epochs == [1, 2, 3]  # two epochs without a better one
    assert result.stopped_early
    assert storage.exists(storage.join(result.checkpoint_uri, "manifest.json"))
    # The dev loss stalled, too: the rate falls to a tenth after each epoch but the first.
    assert [record.learning_rate for record in result.history] == pytest.approx([1e-7, 1e-7, 1e-8], rel=1e-6, abs=0)


def test_every_step_has_a_key_of_its_own(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[StepKey, bool]] = []

    def watched(network: Any, batch: Any, optimizer: Any, *, key: StepKey, **more: Any) -> StepReport:
        seen.append((key, more["balancer"].active))
        return train_step(network, batch, optimizer, key=key, **more)

    monkeypatch.setattr(fitting, "train_step", watched)
    with pytest.raises(KeyboardInterrupt, match="killed"):
        fit(tiny_task(base, "keys"), Listener(die_after=2))
    fit(tiny_task(base, "keys"), Listener())
    assert [key for key, _ in seen] == [StepKey(seed=5, step=n) for n in range(12)]
    assert [modulated for _, modulated in seen] == [False] * 3 + [True] * 9  # from the second epoch on


@pytest.mark.parametrize("killed_after", [1, 3])
def test_resumed_equals_uninterrupted(base: Path, whole: tuple[Task, SeedResult, Listener], killed_after: int) -> None:
    task, listener = tiny_task(base, f"killed-{killed_after}"), Listener()
    with pytest.raises(KeyboardInterrupt, match="killed"):
        fit(task, Listener(die_after=killed_after))
    assert not storage.exists(storage.join(task.uri, "result.json"))
    torch.manual_seed(987)  # a new process starts with other random state
    result = fit(task, listener)
    assert listener.epochs == list(range(killed_after + 1, 5))
    assert listener.first_steps == 1
    assert without_clock(result.history) == without_clock(whole[1].history)
    ours, other = (
        checkpoint.load_weights(checkpoint.checkpoint_uri(t.folder.checkpoints, 12)) for t in (task, whole[0])
    )
    assert ours.keys() == other.keys()
    assert all(torch.equal(ours[name], other[name]) for name in ours)


@pytest.mark.parametrize("damage", ["weights", "best", "manifest"])
def test_a_damaged_newest_checkpoint_is_replaced_by_an_older_one(
    base: Path, whole: tuple[Task, SeedResult, Listener], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    task, listener = tiny_task(base, f"damaged-{damage}"), Listener()
    with pytest.raises(KeyboardInterrupt, match="killed"):
        fit(task, Listener(die_after=2))
    newest, older = checkpoint.complete_steps(task.folder.checkpoints)
    assert older < newest == 6
    if damage == "best":
        best = checkpoint.load_progress(checkpoint.checkpoint_uri(task.folder.checkpoints, newest)).best_step
        assert best == newest
        storage.delete_folder(checkpoint.checkpoint_uri(task.folder.best, best))
    else:
        folder = Path(storage.local_path(checkpoint.checkpoint_uri(task.folder.checkpoints, newest)) or "")
        (path,) = folder.glob(f"*{damage}*")
        path.write_bytes(path.read_bytes()[:-1])
    result = fit(task, listener)
    assert "The checkpoint of step 6 cannot be used" in caplog.text
    assert listener.epochs == [2, 3, 4]
    assert without_clock(result.history) == without_clock(whole[1].history)


def test_a_newer_attempt_ends_an_older_one(base: Path, whole: tuple[Task, SeedResult, Listener]) -> None:
    task = tiny_task(base, "taken-over", resources__checkpoint_minutes=0)
    newer: list[SeedResult] = []

    class TakenOver(Listener):
        def epoch(self, seed: int, record: EpochRecord) -> None:
            super().epoch(seed, record)
            if record.epoch == 2:
                newer.append(fit(task, Listener()))

    with pytest.raises(ConflictError, match=r"attempt 2 \(process \d+ on .*\) has taken over from attempt 1"):
        fit(task, TakenOver())
    assert without_clock(newer[0].history) == without_clock(whole[1].history)
    assert SeedResult.load(task.folder.result_uri) == newer[0]
    load_checkpoint(newer[0].checkpoint_uri)
    assert checkpoint.complete_steps(task.folder.checkpoints) == [12]


def test_a_newer_attempt_survives_a_late_manifest_of_an_older_one(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny_task(base, "late", resources__checkpoint_minutes=0)
    put = storage.put_if_absent
    at_manifest, swept, written = threading.Event(), threading.Event(), threading.Event()
    newer: list[SeedResult] = []

    def put_late(uri: str, data: bytes) -> bool:
        """Let the older attempt's writer wait with a manifest of best weights until the newer one has swept."""
        mine = threading.current_thread().name.startswith("checkpoint") and not at_manifest.is_set()
        if not mine or "best/000000006/manifest" not in uri:
            return put(uri, data)
        at_manifest.set()
        swept.wait(20)
        done = put(uri, data)
        written.set()
        return done

    def start_and_tell(of: Task) -> Any:
        begun = start(of)
        if at_manifest.is_set():
            swept.set()
            written.wait(20)
        return begun

    class TakenOver(Listener):
        def epoch(self, seed: int, record: EpochRecord) -> None:
            super().epoch(seed, record)
            if record.epoch == 2:
                assert at_manifest.wait(20)
                newer.append(fit(task, Listener()))

    monkeypatch.setattr(storage, "put_if_absent", put_late)
    monkeypatch.setattr(fitting, "start", start_and_tell)
    with pytest.raises(ConflictError):
        fit(task, TakenOver())
    assert written.is_set()
    load_checkpoint(newer[0].checkpoint_uri)


def test_a_checkpoint_whose_best_weights_are_gone_is_not_continued(base: Path) -> None:
    task = tiny_task(base, "gone", resources__checkpoint_minutes=0)
    with pytest.raises(KeyboardInterrupt):
        fit(task, Listener(die_after=2))
    for step in checkpoint.complete_steps(task.folder.best):
        uri = checkpoint.checkpoint_uri(task.folder.best, step)
        for name in storage.children(uri):
            if name != checkpoint.MANIFEST:
                storage.delete(storage.join(uri, name))
    with pytest.raises(IntegrityError, match=r"must hold the best weights that .* names, but lacks files"):
        fit(task, Listener())


class DyingStep:
    """Dies after some steps, as a step is done but not yet counted."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self, *all_of: Any, **more: Any) -> StepReport:
        if self.left == 0:
            raise KeyboardInterrupt("killed")
        self.left -= 1
        return train_step(*all_of, **more)


@pytest.mark.parametrize("preset", ["reference", "corrected"])
@pytest.mark.parametrize("killed_after", [[1], [4], [2, 2, 1, 5]])
def test_any_step_can_be_resumed(
    base: Path, monkeypatch: pytest.MonkeyPatch, preset: str, killed_after: list[int]
) -> None:
    """The schedule, the epoch's sums and the best weights included; with dropout, modulation and noise."""
    whole = tiny_task(base, f"whole-{preset}", preset=preset)
    expected = fit(whole, Listener()) if not storage.exists(storage.join(whole.uri, "result.json")) else None
    expected = expected or SeedResult.load(storage.join(whole.uri, "result.json"))
    task, listener = tiny_task(base, f"steps-{preset}-{len(killed_after)}-{killed_after[0]}", preset=preset), Listener()
    for steps in killed_after:
        monkeypatch.setattr(fitting, "train_step", DyingStep(steps))
        with pytest.raises(KeyboardInterrupt, match="killed"):
            fit(task, listener)
    monkeypatch.undo()
    result = fit(task, listener)
    assert listener.epochs == [1, 2, 3, 4]  # no step was taken twice, so no epoch was reported twice
    assert listener.first_steps == len(killed_after) + 1
    assert without_clock(result.history) == without_clock(expected.history)
    assert result.best_epoch == expected.best_epoch
    for place in ("best", "checkpoints"):
        (ours,), (other,) = (
            [checkpoint.load_weights(storage.join(t.uri, place, name)) for name in storage.children(f"{t.uri}/{place}")]
            for t in (task, whole)
        )
        assert all(torch.equal(ours[name], other[name]) for name in other)


def test_a_rank_that_must_leave_writes_a_checkpoint_first(base: Path, whole: tuple[Task, SeedResult, Listener]) -> None:
    task, listener = tiny_task(base, "leaving", resources__checkpoint_minutes=60.0), Listener()
    questions = iter([False] * 4 + [True])
    with pytest.raises(PreemptedError, match=r"Seed 5 was requested to leave, and left after step 5\. Run again"):
        fit(task, listener, leave=lambda: next(questions))
    assert listener.epochs == [1]
    assert checkpoint.latest_step(task.folder.checkpoints) == 5
    result = fit(task, listener)
    assert listener.epochs == [1, 2, 3, 4]
    assert without_clock(result.history) == without_clock(whole[1].history)


def test_leaving_at_the_end_of_an_epoch_keeps_the_best_weights(
    base: Path, whole: tuple[Task, SeedResult, Listener]
) -> None:
    task, listener = tiny_task(base, "leaving-last", resources__checkpoint_minutes=60.0), Listener()
    questions = iter([False] * 2 + [True])
    with pytest.raises(PreemptedError, match=r"left after step 3\. Run again"):
        fit(task, listener, leave=lambda: next(questions))
    assert listener.epochs == [1]
    progress = checkpoint.load_progress(checkpoint.checkpoint_uri(task.folder.checkpoints, 3))
    assert (progress.epoch, progress.best_step) == (1, 3)
    assert checkpoint.latest_step(task.folder.best) == 3
    result = fit(task, listener)
    assert listener.epochs == [1, 2, 3, 4]
    assert without_clock(result.history) == without_clock(whole[1].history)


def test_best_weights_of_a_killed_attempt_are_not_taken(base: Path, whole: tuple[Task, SeedResult, Listener]) -> None:
    """It wrote them, but not the checkpoint that names them; they are of other machines."""
    task, expected = tiny_task(base, "stray"), whole[1]
    stray = checkpoint.checkpoint_uri(task.folder.best, 3 * expected.best_epoch)
    for name in ("weights.safetensors", "manifest.json"):
        storage.put(storage.join(stray, name), b"{}")
    uri = fit(task, Listener()).checkpoint_uri
    assert uri == stray
    ours, other = checkpoint.load_weights(uri), checkpoint.load_weights(expected.checkpoint_uri)
    assert all(torch.equal(ours[name], other[name]) for name in other)


def test_a_finished_seed_is_not_trained_again(whole: tuple[Task, SeedResult, Listener]) -> None:
    task, result, _ = whole
    listener = Listener()
    assert fit(task, listener) == result
    assert listener.epochs == []


def test_checkpoints_of_another_config_are_refused(base: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match="killed"):
        fit(tiny_task(base, "taken"), Listener(die_after=1))
    with pytest.raises(ConfigError, match="must come from the config and features of this run"):
        fit(tiny_task(base, "taken", training__learning_rate=0.5), Listener())
    task = tiny_task(base, "taken")
    with pytest.raises(ConfigError, match="must come from the config and features of this run"):
        fit(replace(task, features=task.features.model_copy(update={"fingerprint": "other"})), Listener())


def test_a_run_may_continue_on_other_machines(base: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match="killed"):
        fit(tiny_task(base, "moved"), Listener(die_after=3))
    listener = Listener()
    fit(tiny_task(base, "moved", resources__workers=1, resources__cpus_per_worker=0.5), listener)
    assert listener.epochs == [4]


def poisoned(split: SplitData, dialogue: int) -> SplitData:
    """The split with a NaN in one dialogue's text."""
    assert isinstance(split.chunks, MappedShards)
    place, rows = split.index.place(dialogue)
    chunk = split.chunks[place]
    text = np.array(chunk.features["text"])
    text[rows.start + 1, 0] = np.nan
    chunks = list(split.chunks.shards)
    chunks[place] = replace(chunk, features={**chunk.features, "text": text})
    return replace(split, chunks=MappedShards(chunks))


def test_a_non_finite_loss_names_the_dialogues(base: Path) -> None:
    task = tiny_task(base, "poisoned")
    with pytest.raises(DivergenceError, match=rf"Dialogues: .*{task.train.dialogue_ids[4]}") as caught:
        fit(replace(task, train=poisoned(task.train, 4)), Listener())
    assert caught.value.context["seed"] == 5
    assert len(caught.value.context["dialogues"]) <= 7
    assert str(task.train.dialogue_ids[4]) in caught.value.context["dialogues"]
    assert checkpoint.latest_step(task.folder.checkpoints) is None


def test_a_cosine_warms_up_and_ends_at_zero(base: Path) -> None:
    settings = tiny_config("corrected").training
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    rates = []
    for step in range(100):
        set_rate(optimizer, settings, step=step, steps=100)
        rates.append(optimizer.param_groups[0]["lr"] / settings.learning_rate)
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == max(rates) == pytest.approx(0.98, abs=0.01)
    assert rates[50] == pytest.approx(0.5)
    assert rates[99] < 0.001


def test_corrected_learns_weighs_its_votes_and_resumes(base: Path) -> None:
    task = tiny_task(base, "corrected", preset="corrected", training__epochs=2, loss__class_balance=0.3)
    result = fit(task, Listener())
    model = load_checkpoint(result.checkpoint_uri)
    assert isinstance(model.fusion, SkillFusion)
    weights = model.fusion.weights
    assert weights[0] == 1.0
    assert weights[0] > weights[1] > weights[2] >= 0.1  # the corpus's planted strengths
    assert task.class_weights is not None
    assert result.history[-1].learning_rate < result.history[0].learning_rate


def test_the_last_epoch_is_kept_if_it_is_selected(base: Path) -> None:
    task = tiny_task(base, "last", preset="corrected", training__epochs=5, training__early_stopping_epochs=1)
    result = fit(task, Listener())
    assert task.config.training.selection == "last"
    assert (result.best_epoch, len(result.history), result.stopped_early) == (5, 5, False)
    assert result.dev.weighted_f1 == pytest.approx(result.history[-1].dev_weighted_f1)
    best = tiny_task(base, "best", preset="corrected", training__epochs=5, training__selection="best")
    chosen = fit(best, Listener())
    assert chosen.dev.weighted_f1 == max(epoch.dev_weighted_f1 for epoch in chosen.history)
