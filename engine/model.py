"""PerceiverS in PyTorch: the training forward and the streaming step, built from the same blocks.

    z = e[t]                                                raw event embeddings
    for S in scales:    z += CrossAttention(z, e[t-S+1..t]);  z += MLP(z)       Multi-Scale, cascaded
    for layer in layers: z += SelfAttention(z, z[t-W+1..t]);  z += MLP(z)       sliding window, in training too

Cross-attention keys and values come from raw embeddings, so cached ones stay valid. Because latents are trained with a sliding
window, their rolling cache is exact too. Positions are relative (rotary). Sources: PerceiverS, arXiv 2411.08307; Perceiver AR,
arXiv 2202.07765.

Shapes: B batch, T events, N latents (the last N of T), D width, H heads, G key/value heads, C head size, R ring rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.attention import PastAttention, ring_attention
from engine.config import ModelConfig
from engine.events import ACTIONS, MAX_WAIT, NO_VELOCITY, NOTE_OFF, PITCHES, REST, VELOCITIES, VELOCITY_BINS, WAITS
from engine.rings import MASKED, rotary_frequencies
from engine.sounding import AGES, MAX_AGE


class Rotary(NamedTuple):
    """cos and sin of the rotary angles, each [..., 1 or G, T, C/2]: one for all heads, or one for each key/value head."""

    cos: Tensor
    sin: Tensor

    @staticmethod
    def at(positions: Tensor, times: Tensor, config: ModelConfig, frequencies: list[float]) -> Rotary:
        """``engine.rings.rotary_angles`` on any device. positions, times [..., T] int64; frequencies: ``rotary_frequencies``."""
        by_head = positions[..., None, :]
        if config.rotary == "half-time":
            by_head = torch.stack((positions, times), dim=-2).repeat_interleave(config.kv_heads // 2, dim=-2)
        return Rotary(*_cos_sin(by_head, frequencies))

    def last(self, count: int) -> Rotary:
        """The angles of the last ``count`` positions."""
        return Rotary(self.cos[..., -count:, :], self.sin[..., -count:, :])


@torch.library.custom_op("perceivers_live::cos_sin", mutates_args=())
def _cos_sin(positions: Tensor, frequencies: list[float]) -> tuple[Tensor, Tensor]:
    """cos and sin of positions [...] times frequencies [F], each float32 [..., F], computed in float64. An operator of its own:
    torch.compile would otherwise compute the angles again in every kernel that rotates.
    """
    angle = positions[..., None].double() * torch.tensor(frequencies, dtype=torch.float64, device=positions.device)
    return angle.cos().float(), angle.sin().float()


@_cos_sin.register_fake
def _(positions: Tensor, frequencies: list[float]) -> tuple[Tensor, Tensor]:
    shape = (*positions.shape, len(frequencies))
    return positions.new_empty(shape, dtype=torch.float32), positions.new_empty(shape, dtype=torch.float32)


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotates the two halves of the last axis. x [..., H or G, T, C]."""
    cos, sin = rotary.cos.to(x.dtype), rotary.sin.to(x.dtype)
    if cos.shape[-3] > 1:
        shared = x.shape[-3] // cos.shape[-3]  # query heads of a key/value head
        cos, sin = cos.repeat_interleave(shared, dim=-3), sin.repeat_interleave(shared, dim=-3)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


class Block(nn.Module):
    """Pre-norm attention and MLP. The caller supplies the source of keys and values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        width, kv_width = config.width, config.kv_heads * config.head_dim
        self.query_norm = nn.RMSNorm(width, eps=1e-6)
        self.source_norm = nn.RMSNorm(width, eps=1e-6)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * kv_width, bias=False)
        self.query_scale = nn.RMSNorm(config.head_dim, eps=1e-6)
        self.key_scale = nn.RMSNorm(config.head_dim, eps=1e-6)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp_norm = nn.RMSNorm(width, eps=1e-6)
        self.up = nn.Linear(width, config.mlp * width, bias=False)
        self.down = nn.Linear(config.mlp * width, width, bias=False)

    @property
    def dtype(self) -> torch.dtype:
        """That of the products, keys and values. Residuals and norms are float32 in any case: see ``PerceiverS.to_precision``."""
        return self.key_value.weight.dtype

    def keys_values(self, source: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        """source [B, T, D] -> keys (rotated) and values, [B, G, T, C] each."""
        k, v = self.key_value(self.source_norm(source).to(self.dtype)).chunk(2, dim=-1)
        k = k.unflatten(-1, (self.kv_heads, self.head_dim)).transpose(1, 2)
        v = v.unflatten(-1, (self.kv_heads, self.head_dim)).transpose(1, 2)
        return rotate(self.key_scale(k.to(self.key_scale.weight.dtype)), rotary).to(v.dtype), v

    def forward(self, z: Tensor, rotary: Rotary, attend: Callable[[Tensor], Tensor]) -> Tensor:
        """z [B, N, D]; ``attend`` maps rotated queries [B, H, N, C] to the attended values of the same shape."""
        q = self.query(self.query_norm(z).to(self.dtype)).unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)
        attended = attend(rotate(self.query_scale(q.to(self.query_scale.weight.dtype)), rotary).to(q.dtype))
        z = z + self.out(attended.transpose(1, 2).flatten(-2))
        return z + self.down(F.gelu(self.up(self.mlp_norm(z).to(self.dtype))))


class EventEmbedding(nn.Module):
    """Sum of the embeddings of an event's fields and of the keys and pedal that are down after it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wait = nn.Embedding(WAITS, width)
        self.action = nn.Embedding(ACTIONS, width)
        self.velocity = nn.Embedding(VELOCITIES, width)
        self.sounding = nn.Linear(2 * AGES, width, bias=False)

    def forward(self, events: Tensor, ages: Tensor) -> Tensor:
        """events [..., 3] int64, ages [..., AGES] integer (-1 = up) -> [..., D]."""
        wait, action, velocity = events.unbind(-1)
        held = (ages >= 0).float()
        age = torch.log1p(ages.clamp(0, MAX_AGE).float()) * (1 / 8)
        sounding = self.sounding(torch.cat((held, held * age), dim=-1).to(self.sounding.weight.dtype))
        return self.wait(wait) + self.action(action) + self.velocity(velocity) + sounding


class Logits(NamedTuple):
    """Unmasked logits of the three fields: [..., WAITS], [..., ACTIONS], [..., VELOCITY_BINS]."""

    wait: Tensor
    action: Tensor
    velocity: Tensor


class EventHead(nn.Module):
    """p(wait | h) p(action | h, wait) p(velocity | h, wait, action): a chain of small heads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.wait_out = nn.Linear(width, WAITS)
        self.wait = nn.Embedding(WAITS, width)
        self.action_mlp = nn.Sequential(
            nn.RMSNorm(width, eps=1e-6), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.action_out = nn.Linear(width, ACTIONS)
        self.action = nn.Embedding(ACTIONS, width)
        self.velocity_mlp = nn.Sequential(
            nn.RMSNorm(width, eps=1e-6), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.velocity_out = nn.Linear(width, VELOCITY_BINS)

    def wait_logits(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """hidden [..., D] -> the normed hidden state h [..., D], and logits [..., WAITS]."""
        h = self.norm(hidden)
        return h, self.wait_out(h)

    def action_logits(self, h: Tensor, wait: Tensor) -> tuple[Tensor, Tensor]:
        """h [..., D], wait [...] int64 -> h after the wait [..., D], and logits [..., ACTIONS]."""
        h = h + self.wait(wait)
        h = h + self.action_mlp(h)
        return h, self.action_out(h)

    def velocity_logits(self, h: Tensor, action: Tensor) -> Tensor:
        """h after the wait [..., D], action [...] int64 -> logits [..., VELOCITY_BINS]."""
        h = h + self.action(action)
        return self.velocity_out(h + self.velocity_mlp(h))

    def forward(self, hidden: Tensor, wait: Tensor, action: Tensor) -> Logits:
        """Teacher-forced logits: hidden [..., D], wait and action of the target event [...]."""
        h, wait_logits = self.wait_logits(hidden)
        h, action_logits = self.action_logits(h, wait)
        return Logits(wait_logits, action_logits, self.velocity_logits(h, action))


class PerceiverS(nn.Module):
    """The model. ``hidden``: the training forward; ``step``: streaming. Both return [..., N, D], the input of ``head``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self._frequencies: list[float] = rotary_frequencies(config).tolist()
        self.embedding = EventEmbedding(config.width)
        self.cross = nn.ModuleList(Block(config) for _ in config.scales)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head = EventHead(config.width)
        self.apply(self._initialise)
        for block in self.blocks:
            nn.init.zeros_(block.out.weight)
            nn.init.zeros_(block.down.weight)

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5 * 0.6)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.3)

    def to_precision(self, dtype: torch.dtype) -> PerceiverS:
        """Converts the products of all blocks, with their keys and values, to ``dtype``. Residuals, norms, embeddings and heads
        remain float32: they are few bytes, and rounding errors in residuals add up from block to block.
        """
        for block in self.blocks:
            for linear in (block.query, block.key_value, block.out, block.up, block.down):
                linear.to(dtype)
        return self

    @property
    def dtype(self) -> torch.dtype:
        """That of keys and values."""
        return self.blocks[0].dtype

    @property
    def blocks(self) -> list[Block]:
        """Every block in the order of execution: cross-attention stages, then latent layers."""
        return [cast(Block, block) for block in (*self.cross, *self.layers)]

    def hidden(
        self,
        events: Tensor,
        ages: Tensor,
        positions: Tensor,
        times: Tensor,
        latents: int,
        multiplicity: Tensor | None = None,
    ) -> Tensor:
        """The training forward.

        events [B, T, 3], ages [B, T, AGES], positions and times [B, T] (ascending; position -1 = padding, only at the front; gaps
        where context was dropped), multiplicity [B, T] (how many events a position stands for; None: one each). The last
        ``latents`` positions are queries. Returns [B, latents, D].
        """
        rotary = Rotary.at(positions, times, self.config, self._frequencies)
        e = self.embedding(events, ages)
        here, q_pos = rotary.last(latents), positions[:, -latents:]

        def crossed(block: Block, z: Tensor, *, window: int) -> Tensor:
            reach = min(e.shape[1], window + latents)
            k, v = block.keys_values(e[:, -reach:], rotary.last(reach))
            share = None if multiplicity is None else multiplicity[:, -reach:]
            past = PastAttention(q_pos, positions[:, -reach:], window, multiplicity=share, block=self.config.mask == "block")
            return block(z, here, lambda q: past(q, k, v))

        z = self._combined(e[:, -latents:], [partial(crossed, window=window) for window in self.config.scales])
        past = PastAttention(q_pos, q_pos, self.config.window)
        for block in self.blocks[len(self.cross) :]:
            k, v = block.keys_values(z, here)
            z = block(z, here, lambda q, k=k, v=v: past(q, k, v))
        return z

    def _combined(self, e: Tensor, stages: Sequence[Callable[[Block, Tensor], Tensor]]) -> Tensor:
        """Applies the cross-attention stages in sequence (``cascade``) or in parallel (``sum``)."""
        z = e
        for block, stage in zip(self.blocks, stages, strict=False):
            z = stage(block, z) if self.config.combine == "cascade" else z + stage(block, e) - e
        return z

    def step(
        self, events: Tensor, ages: Tensor, positions: Tensor, rotary: Rotary, slots: Sequence[Tensor], rings: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """The streaming step over T new events, in delta form: rings are read, never written.

        events [T, 3], ages [T, AGES], positions [T]; ``slots``: the position held by each row of a ring, -1 = empty, one tensor
        [R] for each scale and one for the latent layers; ``rings``: k and v [G, R, C] of every attention in order. Returns hidden
        [T, D] and the new rows, k and v [G, T, C] of every attention.
        """
        d = positions[:, None] - positions[None]
        masks: list[tuple[Tensor, Tensor]] = []
        for window, held in zip((*self.config.scales, self.config.window), slots, strict=True):
            age = positions[:, None] - held[None]
            old = (held[None] >= 0) & (age > 0) & (age < window)
            new = (d >= 0) & (d < window)
            masks.append((torch.where(old, 0.0, MASKED), torch.where(new, 0.0, MASKED)))
        masks += [masks[-1]] * (self.config.layers - 1)
        e = self.embedding(events, ages)[None]
        rows: list[Tensor] = []

        def advanced(block: Block, z: Tensor, source: Tensor | None = None) -> Tensor:
            i = len(rows) // 2
            k, v = block.keys_values(z if source is None else source, rotary)
            rows.extend((k[0], v[0]))
            return block(z, rotary, lambda q: ring_attention(q, (rings[2 * i], rings[2 * i + 1]), (k, v), masks[i]))

        z = self._combined(e, [partial(advanced, source=e)] * len(self.cross))
        for block in self.blocks[len(self.cross) :]:
            z = advanced(block, z)
        return z[0], rows

    def prefill_cross(self, events: Tensor, ages: Tensor, rotary: Rotary) -> list[Tensor]:
        """The part of ``step`` for events that only cross-attention will see: the new rows, k and v [G, T, C], of its stages."""
        e = self.embedding(events, ages)[None]
        return [row[0] for block in self.blocks[: len(self.cross)] for row in block.keys_values(e, rotary)]


def decide(
    head: EventHead,
    hidden: Tensor,
    wait_bias: Tensor,
    action_bias: Tensor,
    velocity_bias: Tensor,
    temperature: Tensor,
    min_p: Tensor,
    noise: Tensor,
) -> Tensor:
    """One event drawn from the chain of heads: [3] int64 (wait, action, velocity bin), deterministic given the noise.

    hidden [D], biases [WAITS], [ACTIONS], [VELOCITY_BINS] added to the logits, temperature [1], min_p [1] (choices whose
    probability is below this share of the highest one are excluded), noise [WAITS + ACTIONS + VELOCITY_BINS] standard Gumbel
    (Gumbel-max sampling). A rest is possible only after a full wait.

    ``min_p`` does not apply to waits: the probability of a long wait is spread over many 10 ms steps, each of them small beside
    the single step within a chord. Excluding them would make all music faster. For the same reason ``min_p`` and ``temperature``
    choose among the pitches of a note-on or of a note-off, but do not change how likely a note-on or a note-off is: note-ons are
    spread over many pitches, note-offs over the few keys that are held, so that notes would become shorter.
    """

    def likely(logits: Tensor) -> Tensor:
        """Log-probabilities at the temperature, without those that ``min_p`` excludes."""
        log_p = (logits / temperature).log_softmax(-1)
        keep = log_p >= log_p.amax(-1, keepdim=True) + min_p.clamp(min=1e-8).log()
        return torch.where(keep, log_p, 2 * MASKED).log_softmax(-1)

    def likely_actions(logits: Tensor) -> Tensor:
        on, off, other = torch.split(logits, [PITCHES, PITCHES, ACTIONS - 2 * PITCHES], -1)
        return torch.cat((*(pitches.logsumexp(-1, keepdim=True) + likely(pitches) for pitches in (on, off)), other), -1)

    for_wait, for_action, for_velocity = torch.split(noise, [WAITS, ACTIONS, VELOCITY_BINS])
    h, logits = head.wait_logits(hidden[None])
    wait = ((logits + wait_bias) / temperature + for_wait).argmax(-1)  # [1]
    h, logits = head.action_logits(h, wait)
    no_rest = torch.where(wait < MAX_WAIT, MASKED, 0.0)[:, None] * (torch.arange(ACTIONS, device=wait.device) == REST)
    action = (likely_actions(logits + action_bias + no_rest) + for_action).argmax(-1)
    velocity = (likely(head.velocity_logits(h, action) + velocity_bias) + for_velocity).argmax(-1)
    return torch.cat((wait, action, velocity))


def losses(logits: Logits, targets: Tensor, ages: Tensor) -> Tensor:
    """Negative log-likelihood of each event in nats, [..., 3] for wait, action and velocity (0 where there is no velocity).

    targets [..., 3] int64; ages [..., AGES] before the event: illegal actions have probability 0.
    """
    wait, action, velocity = targets.unbind(-1)
    keys, pedal = (ages >= 0).split([PITCHES, 1], dim=-1)
    rest = (wait == MAX_WAIT)[..., None]
    illegal = torch.cat((keys, ~keys, pedal, ~pedal, ~rest, torch.ones_like(rest), torch.zeros_like(rest)), dim=-1)
    action_logits = logits.action.float().masked_fill(illegal, MASKED)
    played = action < NOTE_OFF
    return torch.stack(
        (
            F.cross_entropy(logits.wait.float().flatten(0, -2), wait.flatten(), reduction="none").view(wait.shape),
            F.cross_entropy(action_logits.flatten(0, -2), action.flatten(), reduction="none").view(wait.shape),
            F.cross_entropy(
                logits.velocity.float().flatten(0, -2), velocity.clamp(max=NO_VELOCITY - 1).flatten(), reduction="none"
            ).view(wait.shape)
            * played,
        ),
        dim=-1,
    )
