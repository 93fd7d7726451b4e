"""Training of new input embeddings against the hidden states of the base model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

from hpc_llm.errors import UserError
from hpc_llm.rundir import fingerprint
from hpc_llm.vocabulary.contexts import Batch, Spelling
from hpc_llm.vocabulary.rows import NewTokens
from hpc_llm.vocabulary.statistics import norms_of

__all__ = ["Distillation", "RowAdam"]

HELD_OUT, MOST_HELD_OUT = 0.05, 128  # contexts that are not trained on, and report the error


class RowAdam:
    """Adam (Kingma and Ba 2015) that updates only the rows with a gradient.

    The bias correction of a row counts the updates of that row, so one that is seen late or seldom
    takes steps of the same size.
    """

    def __init__(self, rows: torch.Tensor) -> None:
        """Update `rows` (n, d) in place."""
        self.rows = rows
        self.first, self.second = torch.zeros_like(rows), torch.zeros_like(rows)
        self.count = torch.zeros(len(rows), 1)

    def update(self, places: torch.Tensor, gradient: torch.Tensor, rate: float) -> None:
        """Update the rows at distinct `places` (m,) by their `gradient` (m, d)."""
        beta1, beta2 = 0.9, 0.999
        self.count[places] += 1
        count = self.count[places]
        first = self.first[places].lerp(gradient, 1 - beta1)
        second = self.second[places].lerp(gradient**2, 1 - beta2)
        self.first[places], self.second[places] = first, second
        root = (second / (1 - beta2**count)).sqrt() + 1e-12
        self.rows[places] -= rate * first / (1 - beta1**count) / root

    def state(self) -> dict[str, torch.Tensor]:
        """Return all tensors by name."""
        return {"rows": self.rows, "first": self.first, "second": self.second, "count": self.count}


class Distillation:
    """One training of the rows of new tokens."""

    def __init__(
        self,
        model: PreTrainedModel,
        old: torch.Tensor,
        start: torch.Tensor,
        tokens: NewTokens,
        contexts: list[np.ndarray],
    ) -> None:
        """Prepare the training of rows (n, d) from `start`; `old` are all old rows (vocab_o, d).

        Only the rows of tokens in the contexts are in fp32 and have a state of the optimizer.
        """
        self._model, self._settings = model, tokens.settings.distilled
        self._path, self._spelling = tokens.state, Spelling(tokens)
        self._seed, self._start = tokens.seed, start
        self._scale = float(norms_of(old).pow(2).mean() / old.shape[1]) ** 0.5
        used = np.intersect1d(tokens.ids, np.concatenate(contexts))
        self._used = torch.from_numpy(np.searchsorted(tokens.ids, used))  # places among n
        self._place = torch.full((tokens.size,), -1)  # of a new id among the rows in use
        self._place[used] = torch.arange(len(used))
        self._copied = torch.zeros(tokens.size, dtype=torch.long)  # old id of a copied token
        if tokens.anchors:
            new_ids, old_ids = torch.tensor(tokens.anchors).T
            self._copied[new_ids] = old_ids
        order = np.random.default_rng(tokens.seed).permutation(len(contexts))
        held = min(MOST_HELD_OUT, int(HELD_OUT * len(contexts)))
        self._held = [contexts[i] for i in order[:held]]
        self._contexts = [contexts[i] for i in order[held:]]
        places = self._place[np.unique(np.concatenate(self._contexts))]
        self.seen = int((places >= 0).sum())
        """Number of tokens that occur in the contexts."""
        self._adam = RowAdam(start[self._used].float())
        lengths = [len(one) for one in contexts]
        self._key = fingerprint(self._settings, tokens.seed, len(used), lengths)
        self._check_layer()

    @property
    def rows(self) -> torch.Tensor:
        """The rows (n, d), in the precision of the start."""
        self._start[self._used] = self._adam.rows.to(self._start.dtype)
        return self._start

    def train(self) -> dict[str, Any]:
        """Train to the last step, from a saved state if there is one; return the report.

        `error_before` and `error` are of contexts that are not trained on (null without any):
        |student - teacher|^2 / |teacher|^2 over their compared hidden states.
        """
        settings = self._settings
        with _frozen(self._model):
            before = self._error()
            begin = self._load()
            for step in range(begin, settings.steps):
                self._step(step)
                if (step + 1) % settings.save_steps == 0:
                    self._save(step + 1)
            after = self._error()
        return {
            "contexts": len(self._contexts),
            "held_out": len(self._held),
            "steps": settings.steps,
            "error_before": before,
            "error": after,
        }

    def _step(self, step: int) -> None:
        """Update the rows of the tokens in one batch."""
        settings = self._settings
        batch = self._spelling.batch(self._drawn(step))
        places = self._place[batch.new]  # (b, t)
        used, index = torch.unique(places[places >= 0], return_inverse=True)
        if not len(used):
            return
        leaf = self._adam.rows[used].requires_grad_()  # (m, d)
        difference, size = self._compare(batch, places, leaf[index])
        (difference / size).backward()
        assert leaf.grad is not None
        rate = settings.learning_rate * self._scale * (1 - step / settings.steps)
        self._adam.update(used, leaf.grad, rate)

    def _drawn(self, step: int) -> list[np.ndarray]:
        """Return the contexts of a step: each once in an epoch, in an order of its own."""
        count, batch = len(self._contexts), self._settings.batch
        begin = step * batch
        orders: dict[int, np.ndarray] = {}
        drawn = []
        for item in range(begin, begin + min(batch, count)):
            epoch, place = divmod(item, count)
            if epoch not in orders:
                orders[epoch] = np.random.default_rng([self._seed, epoch]).permutation(count)
            drawn.append(self._contexts[orders[epoch][place]])
        return drawn

    def _compare(
        self, batch: Batch, places: torch.Tensor, rows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return |student - teacher|^2 and |teacher|^2 over the compared hidden states.

        `rows` (m, d) are those of the new tokens of the batch, where `places` (b, t) >= 0.
        """
        embedding = self._model.get_input_embeddings()
        device = embedding.weight.device
        with torch.no_grad():
            wanted = self._hidden(input_ids=batch.old.to(device))  # (b, s, d)
            inputs = embedding(self._copied[batch.new].to(device))  # (b, t, d)
        scale = getattr(embedding, "embed_scale", 1.0)  # Gemma's, applied by the module
        inputs = inputs.index_put(
            torch.nonzero(places >= 0).T.to(device).unbind(), (rows.to(inputs) * scale).to(inputs)
        )
        found = self._hidden(inputs_embeds=inputs)
        index = batch.ends[..., None].expand(-1, -1, wanted.shape[-1]).to(device)
        wanted = wanted.gather(1, index)[batch.compared.to(device)].float()
        found = found[batch.compared.to(device)].float()
        return (found - wanted).pow(2).sum(), wanted.pow(2).sum()

    def _hidden(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Return the hidden states behind the chosen layer."""
        layer = self._settings.layer
        out = self._model.base_model(**inputs, output_hidden_states=layer is not None)
        hidden: torch.Tensor = out.last_hidden_state if layer is None else out.hidden_states[layer]
        return hidden

    @torch.no_grad()
    def _error(self) -> float | None:
        """Return the relative squared error on the contexts that are held out."""
        sums = np.zeros(2)
        for begin in range(0, len(self._held), self._settings.batch):
            batch = self._spelling.batch(self._held[begin : begin + self._settings.batch])
            places = self._place[batch.new]
            parts = self._compare(batch, places, self._adam.rows[places[places >= 0]])
            sums += [float(part) for part in parts]
        return float(sums[0] / sums[1]) if sums[1] else None

    def _check_layer(self) -> None:
        """Raise `UserError` for a layer that the model does not have."""
        layer, layers = self._settings.layer, self._model.config.get_text_config().num_hidden_layers
        if layer is not None and layer > layers:
            rule = f"the model has {layers} layers"
            raise UserError("transplant.distilled.layer", layer, rule, f"use at most {layers}")

    def _save(self, step: int) -> None:
        """Write the state behind `step`, atomically."""
        if self._path is not None:
            new = self._path.with_name(f"{self._path.name}.tmp")
            save_file(self._adam.state(), new, {"step": str(step), "key": self._key})
            new.replace(self._path)

    def _load(self) -> int:
        """Read a saved state of the same training; return its step, 0 without one."""
        if self._path is None or not self._path.exists():
            return 0
        with safe_open(self._path, "pt") as file:
            found = file.metadata()
            if found["key"] != self._key:
                return 0
            for name, tensor in self._adam.state().items():
                tensor.copy_(file.get_tensor(name))
        return int(found["step"])


@contextmanager
def _frozen(model: PreTrainedModel) -> Iterator[None]:
    """Freeze `model` inside the block, on the GPU if there is one; then put it back."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    training, device = model.training, next(model.parameters()).device
    model.requires_grad_(False).eval()
    try:
        model.to("cuda" if torch.cuda.is_available() else device)
        yield
    finally:
        model.to(device).train(training)
        for parameter in trainable:
            parameter.requires_grad_()
