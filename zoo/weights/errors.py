"""What can be wrong with weights."""


class WeightsError(ValueError):
    """A weight file that is absent, damaged or does not fit its model."""
