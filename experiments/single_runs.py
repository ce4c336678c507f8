"""Combinations of a search trained one after the other: what `experiments.bench search` compares
the search with. Each distinct shape is compiled once, clips are decoded once, and a run is
validated at its end only."""

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import data, train
from experiments.config import SEARCHED, Config, Search, changed
from experiments.streams import Streams


class Runs:
    """Single runs of a configuration whose learning rate is constant.

    What is compiled for a batch size serves every number of epochs and every fold.
    """

    def __init__(self, config: Config, prepared: data.Prepared) -> None:
        self.config, self.prepared = changed(config, {"search": Search()}), prepared
        self.folds, self.classes = config.search.folds, len(prepared.classes)
        self.model = train.make_model(config, self.classes)
        self.kept: dict[str, dict[int, Any]] = {}
        given = train.numbers(self.config, 1)
        self._init = jax.jit(lambda: train.init_state(self.model, self.config, given))
        self._steps: dict[int, Callable[..., Any]] = {}

    def score(self, values: Mapping[str, Any]) -> float:
        """The share of right clips after the last epoch, mean over the folds."""
        config = changed(self.config, {SEARCHED[name]: value for name, value in values.items()})
        folds = [{"data.folds": self.folds, "data.fold": fold} for fold in range(self.folds)]
        return float(np.mean([self._train(changed(config, fold)) for fold in folds]))

    def _train(self, config: Config) -> float:
        size, state = config.batch_size, self._init()
        if size not in self._steps:
            self._steps[size] = self._compiled(config)
        open_streams = functools.partial(Streams, self.prepared, [config])
        training = open_streams(size, self.kept, train=True)
        holding = open_streams(config.eval.batch_size, self.kept, train=False)
        with contextlib.closing(training), contextlib.closing(holding):
            for epoch in range(config.epochs):
                training.seek(epoch, 0)
                for _, rows in training.groups(0, 1):
                    batch = {name: rows[name][0] for name in ("clip", "label")}
                    state, _ = self._steps[size](state, batch)
            variables, right = train.evaluated_variables(state), 0.0
            holding.seek(0, 0)
            for _, rows in holding.groups(0, 1):
                right += self._right(variables, {name: x[0] for name, x in rows.items()})
            return float(right) / holding.clips[0]

    def _compiled(self, config: Config) -> Callable[..., Any]:
        given = train.numbers(config, 1)
        return jax.jit(
            lambda state, batch: train.train_step(
                self.model, config, self.classes, given, state, batch
            ),
            donate_argnums=0,
        )

    @functools.cached_property
    def _right(self) -> Callable[..., Any]:
        def right(variables: Any, batch: train.Batch) -> jax.Array:
            found = train.eval_step(self.model, self.config, 1, variables, batch["clip"])
            return ((jnp.argmax(found, -1) == batch["label"]) * batch["weight"]).sum()

        return jax.jit(right)
