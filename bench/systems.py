"""The systems compared by `bench/train.py`, each in a separate process.

They build the same model, read the same sequences in the same order and make the same step: AdamW
(fused, betas 0.9 and 0.95, no weight decay), a constant learning rate, gradients clipped at norm 1.
In bf16 all keep fp32 weights and moments: hpc_llm and DeepSpeed as master weights of bf16 weights,
the others with autocast.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import deepspeed
import peft
import torch
from cases import LEARNING_RATE, Case, build_model
from transformers import (
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)
from turns import Finished, Gate, autocast, begin_peak, inputs, warm_up

from hpc_llm.distributed import detect_ranks
from hpc_llm.pipeline.fingerprints import Stage
from hpc_llm.pipeline.open import open_context
from hpc_llm.pipeline.table import ROWS
from hpc_llm.rundir import RunFolder
from hpc_llm.stages.training import train_stage
from hpc_llm.surgery.trainable import linear_layers
from hpc_llm.training import engine, process_group

__all__ = ["SYSTEMS", "contest"]

BATCHES = 64  # held in memory by the other systems; more than a comparison needs


def contest(pipe: Connection, case: Case, system: str) -> None:
    """Train `case` with `system` in turns, as requested by the parent through `pipe`."""
    torch.set_num_threads(case.threads)
    with suppress(Finished):
        if not torch.cuda.is_available():
            warm_up(case.precision)
            begin_peak()
        SYSTEMS[system](case, partial(Gate, pipe, case))


def trainable_model(case: Case, model: LlamaForCausalLM) -> torch.nn.Module:
    """Freeze the parameters that are not trained, as users do."""
    model.to(process_group.device_of())
    if case.method == "full":
        return model
    model.requires_grad_(False)
    if case.method == "embeddings":
        for end in (model.get_input_embeddings(), model.get_output_embeddings()):
            end.requires_grad_(True)
        return model
    torch.manual_seed(case.settings().seed)
    lora = peft.LoraConfig(
        r=16, lora_alpha=32, target_modules=linear_layers(model), task_type="CAUSAL_LM"
    )
    return peft.get_peft_model(model, lora)


def adamw(model: torch.nn.Module) -> torch.optim.AdamW:
    """Return the optimizer of all systems except hpc_llm, which builds an equal one."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        trainable, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )


def endless(case: Case) -> Iterator[list[dict[str, torch.Tensor]]]:
    """Yield the forward passes of each step, in an endless loop over the batches."""
    parts = [inputs(rows) for rows in case.batches(BATCHES)]
    size = len(parts) // BATCHES
    while True:
        yield from (parts[i : i + size] for i in range(0, len(parts), size))


def run_ours(case: Case, gate_of: Callable[[torch.nn.Module], Gate]) -> None:
    """The stage as run by `hpc-llm train`: engine, loop, guards, events, ledger, W&B offline."""
    cfg, ranks = case.settings(), detect_ranks({})
    model = build_model(case)
    gate = gate_of(model)
    stage = Stage(
        name=f"train/{case.method}", row=ROWS["train"], needs=(), fingerprint="bench",
        settings={}, outputs=(), owns=(),
    )  # fmt: skip
    process_group.start(ranks, case.threads)
    with (
        tempfile.TemporaryDirectory(dir=case.folder) as folder,
        open_context(cfg, [stage], RunFolder(Path(folder)), ranks, "train") as context,
        timed_engine(gate),
    ):
        gated = replace(context, stop_reason=gate)  # called at every step boundary
        train_stage(gated, case.method, model, case.text(), Path(folder) / "train")


@contextmanager
def timed_engine(gate: Gate) -> Iterator[None]:
    """Sum the time in the engine; the rest of a step is data loading, guards and logging."""
    kept = {name: getattr(engine.Engine, name) for name in ("accumulate", "update")}

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            result = method(*arguments, **options)
            gate.inside += time.perf_counter() - began
            return result

        return call

    for name, method in kept.items():
        setattr(engine.Engine, name, timed(method))
    yield
    for name, method in kept.items():
        setattr(engine.Engine, name, method)


def run_trainer(case: Case, gate_of: Callable[[torch.nn.Module], Gate]) -> None:
    """HF Trainer (with peft), in its usual form."""
    model = trainable_model(case, build_model(case, torch.float32))
    gate = gate_of(model)
    parts = [inputs(rows) for rows in case.batches(BATCHES)]
    items = [
        {name: tensor[i].cpu() for name, tensor in part.items()}
        for part in parts
        for i in range(len(part["labels"]))
    ]

    class Turns(TrainerCallback):
        def on_train_begin(self, *arguments: Any, **options: Any) -> None:
            gate()

        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            gate()

    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),
        max_steps=1_000_000,
        per_device_train_batch_size=len(parts[0]["labels"]),
        gradient_accumulation_steps=len(parts) // BATCHES,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        adam_beta1=0.9,
        adam_beta2=0.95,
        max_grad_norm=1.0,
        bf16=case.precision == "bf16",
        fp16=case.precision == "fp16",
        train_sampling_strategy="sequential",
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=items,
        data_collator=default_data_collator,
        callbacks=[Turns()],
    )
    trainer.train()


def run_torch(case: Case, gate_of: Callable[[torch.nn.Module], Gate]) -> None:
    """A plain PyTorch loop, as in tutorials."""
    model = trainable_model(case, build_model(case, torch.float32))
    gate = gate_of(model)
    optimizer = adamw(model)
    learning = [p for p in model.parameters() if p.requires_grad]
    scaler = torch.amp.GradScaler(enabled=case.precision == "fp16")
    for step in endless(case):
        gate()
        for batch in step:
            with autocast(case.precision):
                loss = model(**batch).loss / len(step)
            scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()


def run_deepspeed(case: Case, gate_of: Callable[[torch.nn.Module], Gate]) -> None:
    """Plain DeepSpeed ZeRO-1: the model's own loss, default bucket sizes."""
    process_group.start(detect_ranks({}), case.threads)
    model = trainable_model(case, build_model(case))
    gate = gate_of(model)
    steps = endless(case)
    first = next(steps)
    settings = {
        "train_micro_batch_size_per_gpu": len(first[0]["labels"]),
        "gradient_accumulation_steps": len(first),
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": 1},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    if case.precision != "fp32":
        settings[case.precision] = {"enabled": True}
    with process_group.quiet():
        trained, *_ = deepspeed.initialize(model=model, optimizer=adamw(model), config=settings)
    for step in chain([first], steps):
        gate()
        for batch in step:
            trained.backward(trained(**batch).loss)
            trained.step()


SYSTEMS = {
    "hpc_llm": run_ours,
    "trainer": run_trainer,
    "torch": run_torch,
    "deepspeed": run_deepspeed,
}
