"""openSMILE's functionals, the field's usual published audio features. Not for commercial use."""

import logging
from collections.abc import Sequence
from typing import Literal

from ada2i.data.provenance import EncoderInfo
from ada2i.extraction.encoders.base import Encoded, encode_each, finite
from ada2i.extraction.encoders.weights import files_digest, package_folder
from ada2i.extraction.media import RATE, Waveform

_LOG = logging.getLogger(__name__)

# Names here, openSMILE's names, widths.
_SETS = {
    "egemapsv02": ("eGeMAPSv02", 88),
    "is10": ("IS10", 1582),
    "compare2016": ("ComParE_2016", 6373),
}


class OpenSmile:
    """One of openSMILE's feature sets (Eyben et al. 2010), computed over a whole utterance."""

    def __init__(self, *, name: Literal["egemapsv02", "is10", "compare2016"]) -> None:
        import opensmile

        theirs, width = _SETS[name]
        self._smile = opensmile.Smile(
            feature_set=opensmile.FeatureSet[theirs],
            feature_level=opensmile.FeatureLevel.Functionals,
            num_workers=1,
        )
        core = package_folder("opensmile") / "core"
        self.info = EncoderInfo(
            name=name,
            modality="audio",
            width=width,
            licence="audEERING research licence: non-commercial use only",
            source=f"opensmile {opensmile.__version__}",
            weights_digest=files_digest([*core.glob("config/**/*.*"), *core.glob("bin/**/*.*")]),
        )
        _LOG.warning("The encoder %s may be used under the %s.", name, self.info.licence)

    def encode(self, items: Sequence[Waveform | None]) -> list[Encoded]:
        """Encode sounds, one by one."""
        return encode_each(items, self._encode)

    def _encode(self, item: Waveform) -> Encoded:
        values = self._smile.process_signal(item.samples, RATE).to_numpy()  # (1, D)
        return finite(values[0], item.flags)
