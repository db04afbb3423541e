"""The limits from which an audit reports a warning or an error."""

from typing import Annotated

from pydantic import Field

from ada2i.config import Config

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class AuditThresholds(Config):
    """Values from which a measure is a warning or an error; for shares, values above the threshold."""

    missing_warning: Share = Field(0.10, description="Missing vectors of a modality in a split.")
    missing_error: Share = 0.50
    zero_warning: Share = Field(0.01, description="All-zero vectors among the vectors of a modality in a split.")
    duplicates_warning: Share = Field(0.01, description="Vectors that repeat another of their split.")
    copies_error: Share = Field(0.05, description="Vectors of a split that copy one of an earlier split.")
    texts_warning: Share = Field(0.20, description="Transcripts of a split that an earlier split has too.")
    split_dialogues: int = Field(10, ge=0, description="A split of fewer dialogues is tiny.")
    probe_gap: Share = Field(0.10, description="Probe's weighted F1 on held-out train dialogues minus that on test.")
    probe_lead: Share = Field(0.82, description="Probe's lead on test divided by that on held-out train dialogues.")
    probe_width: int = Field(1024, ge=0, description="Wider vectors are not probed.")
    probe_rows: int = Field(100_000, ge=0, description="Larger sources are not probed.")
