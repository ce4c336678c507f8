"""Name tables of published weights, one module a family: data, applied by `zoo.weights.convert`."""
