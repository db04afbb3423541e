"""What a flow trains on if no parameter names it: a setting outside the repository."""

import os

from prefect.variables import Variable

VARIABLE = "ada2i_features"
ENVIRONMENT = "ADA2I_FEATURES"


def features_of(parameter: str | None) -> str:
    """Return the parameter, else ADA2I_FEATURES, else Prefect's variable ``ada2i_features``, else ``demo``."""
    return parameter or os.environ.get(ENVIRONMENT) or str(Variable.get(VARIABLE, default=None) or "demo")
