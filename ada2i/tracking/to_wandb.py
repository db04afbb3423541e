"""Versions as offline runs of Weights & Biases: folders that ``wandb sync`` uploads; nothing is sent here."""

import os
import shutil
import tempfile
from pathlib import Path

from ada2i import storage
from ada2i.errors import ConfigError
from ada2i.tracking.tracked import Tracked

_DIGITS = 16  # of a run's id


class WandbTracker:
    """Writes run folders.

    Args:
        to: A folder; runs lie in ``wandb`` there.

    Raises:
        ConfigError: It is a URI.
    """

    def __init__(self, to: str) -> None:
        if "://" in to:
            raise ConfigError(f"`--to` must be a folder, but is {to[:200]!r}. Name a local one.", field="to")
        os.environ.update({"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"})
        self.folder = Path(to).absolute()
        self.runs = self.folder / "wandb"
        self.runs.mkdir(parents=True, exist_ok=True)

    def add(self, version: Tracked) -> bool:
        """Write a version unless the folder holds it with these verdicts and aliases; return whether it was written."""
        name = f"{version.model}/{version.name}/{version.tags['run']}"
        key = storage.digest(name.encode())[:_DIGITS]
        if any(self.runs.glob(f"offline-run-*-{key}")):
            return False
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=self.folder) as folder:
            self._write(version, key, folder)
            # A crash before this move leaves a folder that no `wandb sync` reads.
            (made,) = Path(folder, "wandb").glob(f"offline-run-*-{key}")
            shutil.move(made, self.runs / made.name)
        return True

    def _write(self, version: Tracked, key: str, folder: str) -> None:
        import wandb

        settings = wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_disable_meta=True,
        )
        run = wandb.init(
            mode="offline",
            dir=folder,
            project=version.model,
            id=key,
            name=version.name,
            config={**version.params, **{f"ada2i.{name}": value for name, value in version.tags.items()}},
            tags=[tag for tag in version.tags["aliases"].split(",") if tag],
            settings=settings,
        )
        for epoch, values in version.epochs.items():
            run.log({"epoch": epoch, **values}, step=epoch)
        run.summary.update(dict(version.summary))
        for name, data in version.files.items():
            Path(run.dir, name).write_bytes(data)
            run.save(str(Path(run.dir, name)), base_path=run.dir, policy="now")
        run.finish()
