"""What a training run is told: one typed, closed set of keys for each trainer.

Every key has a description, which ``train X --help`` prints, and a default that suits small models.
Paper: Ouyang et al. 2022, *Training language models to follow instructions with human feedback*, appendix C.
Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from alignbench.errors import UsageError, nearest

Kind = Literal["sft", "rm", "ppo"]


class TrainConfig(BaseModel):
    """Keys that the three trainers share. Unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), coerce_numbers_to_str=True, allow_inf_nan=False
    )

    model: str = Field(description="model to start from: a folder, a hub id, or `pocket`")
    data: str = Field(description="training data: `pocket:NAME`, a file or folder, or a data-set name")
    chat_template: Literal["auto", "on", "off"] = Field(
        "auto", description="prompts as the user's turn of the tokenizer's template; auto: where it has one"
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="fixes the data order, the initial head and all sampling"
    )
    steps: int | None = Field(None, ge=1, description="optimizer steps; wins over `epochs`")
    epochs: float | None = Field(1.0, gt=0, description="passes over the training data")
    batch_size: int = Field(32, ge=1, description="examples (for rm: prompts) in one optimizer step")
    lr: float | None = Field(
        None, gt=0, description="peak learning rate; null: 1e-3·(10⁶/parameters)^⅔, at least 5e-6"
    )
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="after the warm-up")
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")
    final_lr_fraction: float = Field(0.1, ge=0, le=1, description="part of `lr` that the schedule ends on")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled decay, on matrices alone")
    max_grad_norm: float = Field(1.0, gt=0, description="global gradient norm is clipped to this")
    max_length: int = Field(512, ge=8, description="tokens of one example; longer ones lose their beginning")
    micro_tokens: int = Field(
        8192, ge=1, description="padded tokens in one forward pass; lower it to save memory"
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the arithmetic; weights are float32"
    )
    device: str = Field("auto", description="`auto`, `cpu`, `cuda`, `cuda:1`, …")
    threads: int | None = Field(None, ge=1, description="CPU threads of torch; null: torch's own choice")
    save_every: int = Field(100, ge=1, description="steps between checkpoints to resume from")
    keep: int = Field(1, ge=1, description="number of such checkpoints that are kept")


class SupervisedConfig(TrainConfig):
    """Keys of the trainers that learn from examples and hold some of them out."""

    eval_fraction: float = Field(0.1, ge=0, lt=1, description="part of the prompts that is held out")
    eval_data: str | None = Field(None, description="held-out data of its own, in place of `eval_fraction`")
    eval_every: int | None = Field(None, ge=1, description="steps between evaluations; null: once an epoch")


class SFTConfig(SupervisedConfig):
    """Supervised fine-tuning on demonstrations (appendix C.1; there 16 epochs and residual dropout 0.2)."""

    epochs: float | None = Field(3.0, gt=0, description="passes over the training data")
    residual_dropout: float = Field(
        0.0, ge=0, lt=1, description="dropout on every residual branch; 0: as the model has it"
    )
    reward_model: str | None = Field(
        None, description="chooses the checkpoint by its score of sampled answers; null: by held-out loss"
    )
    select_prompts: int = Field(64, ge=1, description="held-out prompts answered for `reward_model`")
    max_new_tokens: int = Field(64, ge=1, description="length of those answers, in tokens")


class RMConfig(SupervisedConfig):
    """Reward model on comparisons (appendix C.2; one epoch, since more overfits the comparisons)."""

    max_length: int = Field(256, ge=8, description="tokens of one example; longer ones lose their beginning")
    demonstrations: str | None = Field(
        None, description="demonstrations whose mean reward is shifted to 0; null: the preferred responses"
    )
    holdout_labeler: str | None = Field(
        None, description="rankings of this labeler are never trained on and are evaluated apart"
    )


class PPOConfig(TrainConfig):
    """PPO against a reward model, with the pretraining term (section 3.5, appendix C.4)."""

    reward_model: str = Field(description="folder of the reward model")
    reference: str | None = Field(None, description="model that the KL penalty holds on to; null: `model`")
    pretrain_data: str | None = Field(None, description="texts for the pretraining term; null: plain PPO")
    ptx_coef: float = Field(27.8, ge=0, description="weight of the pretraining term, in nats a token")
    ptx_batch_size: int = Field(16, ge=1, description="pretraining texts in each policy minibatch")
    steps: int | None = Field(
        50,
        ge=1,
        description="rollouts, each followed by `ppo_epochs` of updates; null where `epochs` is given",
    )
    epochs: float | None = Field(None, gt=0, description="passes over the prompts, in place of `steps`")
    minibatches: int = Field(4, ge=1, description="parts that a rollout is split into, one update each")
    ppo_epochs: int = Field(1, ge=1, description="passes over one rollout")
    batch_size: int = Field(64, ge=1, description="prompts answered in one step (the rollout)")
    max_length: int = Field(
        512, ge=8, description="tokens of a pretraining text; longer ones are cut in pieces"
    )
    lr: float | None = Field(None, gt=0, description="policy learning rate; null: 0.3 × that of sft")
    value_lr: float | None = Field(None, gt=0, description="learning rate of the value model; null: `lr`")
    schedule: Literal["cosine", "linear", "constant"] = Field("constant", description="after the warm-up")
    warmup: int = Field(5, ge=0, description="steps of linear warm-up")
    kl_coef: float = Field(0.02, ge=0, description="β of the per-token KL penalty")
    gamma: float = Field(1.0, ge=0, le=1, description="discount")
    lam: float = Field(0.95, ge=0, le=1, description="λ of generalised advantage estimation")
    clip: float = Field(0.2, gt=0, description="ratio clipping ε")
    value_clip: float | None = Field(0.2, gt=0, description="value clipping; null: none")
    whiten_advantages: bool = Field(True, description="advantages to mean 0 and variance 1 in a rollout")
    whiten_rewards: bool = Field(False, description="rewards to variance 1 in a rollout, before GAE")
    temperature: float = Field(1.0, gt=0, description="of the rollouts")
    rollout_engine: Literal["hf", "vllm"] = Field(
        "hf",
        description="what samples: hf, the policy itself; vllm, in this process, given the weights "
        "before each step, its log-probabilities' distance to the policy's logged as rollout_logprob_gap",
    )
    rollout_memory: float = Field(
        0.3, gt=0, lt=1, description="part of a GPU's memory for vLLM's weights, keys and values"
    )
    max_new_tokens: int = Field(64, ge=1, description="length of a rollout's responses, in tokens")
    missing_eos_penalty: float = Field(
        0.0, ge=0, description="taken off the reward of a response that did not end by itself"
    )
    ema_decay: float | None = Field(
        0.992, ge=0, lt=1, description="of the averaged weights that are written; null: none"
    )
    log_rollouts: int = Field(
        8, ge=0, description="rollouts of each step that go to rollouts.jsonl: the first ones of the batch"
    )
    gold: bool = Field(True, description="on the pocket world, log the gold reward too (never trained on)")

    @model_validator(mode="before")
    @classmethod
    def _epochs_replace_the_default_steps(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("epochs") is not None:
            return {"steps": None, **values}
        return values


CONFIGS: dict[Kind, type[TrainConfig]] = {"sft": SFTConfig, "rm": RMConfig, "ppo": PPOConfig}


def load_config(kind: Kind, file: Path | None, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file, lay ``key=value`` overrides over it, and validate.

    ``null`` (or nothing after ``=``) as a value is None.

    Raises:
        UsageError: unreadable file, no mapping, unknown key (with the nearest one), missing key, wrong value.
    """
    schema = CONFIGS[kind]
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    if file is not None:
        values = _read_yaml(file)
        origin = dict.fromkeys(values, str(file))
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(
                f"train {kind}: {text!r} is not key=value{nearest(key, list(schema.model_fields))}"
            )
        values[key] = None if value in ("null", "") else value
        origin[key] = text
    for key in values:
        if key not in schema.model_fields:
            hint = nearest(str(key), list(schema.model_fields)) or f"; see alignbench train {kind} --help"
            raise UsageError(f"train {kind}: unknown key {key!r} in {origin[key]}{hint}")
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"train {kind}: {_sentence(error, origin)}") from error


def defaults_table(kind: Kind) -> list[tuple[str, str, str]]:
    """Rows ``(key, default, meaning)`` of every key, for ``--help``; a key without a default says so."""
    rows = []
    for key, field in CONFIGS[kind].model_fields.items():
        default = (
            "required" if field.is_required() else "null" if field.default is None else str(field.default)
        )
        rows.append((key, default, field.description or ""))
    return rows


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"config {file}: cannot be read ({error.strerror}); give an existing YAML file"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or error
        raise UsageError(
            f"config {file}{line}: not valid YAML ({problem}); write `key: value` lines"
        ) from error
    if not isinstance(read, dict):
        raise UsageError(f"config {file}: holds no mapping; write one `key: value` a line")
    return read


def _sentence(error: ValidationError, origin: dict[str, str]) -> str:
    first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "missing":
        return f"key {key!r} is missing; add {key}=…"
    said = first["msg"][0].lower() + first["msg"][1:]
    return f"{key!r} in {origin.get(key, 'the config')}: {said}, not {first['input']!r}"
