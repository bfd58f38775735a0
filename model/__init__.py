"""Windows in, numbers out: data sets, labels, the network, training, bundles and the predictor."""
