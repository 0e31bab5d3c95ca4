"""The autodiff: nothing here knows a distribution."""
