"""How good the model is, measured: a published benchmark, the regime flag, the forecast, series of known optimum."""
