"""The objective, one token at a time, in plain Python floats. Written from the papers, not from the code it checks."""

from __future__ import annotations

import math


def staleness_weight(d, settings):
    if d <= settings.k1:
        return 1.0
    return math.exp(-settings.decay * (d - settings.k1)) if d <= settings.k2 else 0.0


def token(kind, logprob, behavior, advantage, weight, segment_mean, settings):
    """(objective, its derivative by logprob) of a token that counts; `segment_mean`: mean log ratio of its segment."""
    r, low, high = math.exp(logprob - behavior), 1 - settings.clip_low, 1 + settings.clip_high
    clipped = min(max(r, low), high)
    s = math.exp(segment_mean)
    match kind:
        case "grpo":
            value = min(r * advantage, clipped * advantage)
            silenced = (advantage > 0 and r > high) or (advantage < 0 and r < low)
            slope = 0.0 if silenced else r * advantage
        case "tis":
            factor = min(r, settings.ratio_cap) * advantage
            value, slope = factor * logprob, factor
        case "cispo":
            value, slope = clipped * advantage * logprob, clipped * advantage
        case "sequence_mask":
            inside = settings.band_low <= s <= settings.band_high
            value = slope = r * advantage if inside else 0.0
        case "gspo":
            value = min(s * advantage, min(max(s, low), high) * advantage)
            silenced = (advantage > 0 and s > high) or (advantage < 0 and s < low)
            slope = 0.0 if silenced else s * advantage
        case "filtered":
            value, slope = (logprob, 1.0) if advantage > 0 else (0.0, 0.0)
    return value * weight, slope * weight


def loss(logprobs, entropy, batch, policy_version, settings, denominator):
    """(loss, d loss / d logprobs [B][T]) of nested lists; `batch` maps the fields of `rl.types.Batch` to lists."""
    total, slopes = 0.0, []
    for b, row in enumerate(logprobs):
        slopes.append([0.0] * len(row))
        weights = [staleness_weight(policy_version - v, settings) for v in batch["token_versions"][b]]
        live = [m > 0 and w > 0 for m, w in zip(batch["loss_mask"][b], weights, strict=True)]
        ratios = [p - q for p, q in zip(row, batch["behavior_logprobs"][b], strict=True)]
        segments = batch["segment_ids"][b]
        for t, logprob in enumerate(row):
            if not live[t]:
                continue
            mine = [ratios[u] for u in range(len(row)) if live[u] and segments[u] == segments[t]]
            behavior, advantage = batch["behavior_logprobs"][b][t], batch["advantages"][b][t]
            mean = sum(mine) / len(mine)
            value, slope = token(settings.kind, logprob, behavior, advantage, weights[t], mean, settings)
            value += settings.entropy * weights[t] * entropy[b][t]
            if settings.kl:
                q = batch["ref_logprobs"][b][t] - logprob
                value -= settings.kl * weights[t] * (math.exp(q) - q - 1)
                slope -= settings.kl * weights[t] * (1 - math.exp(q))
            total -= value
            slopes[b][t] = -slope / denominator
    return total / denominator, slopes
