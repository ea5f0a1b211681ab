"""What `diagnosis` says, in the page's languages: by rule and language what it looks like, and what to do."""

from __future__ import annotations

from collections.abc import Mapping

WORDS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "sampler_gap": {
        "en": (
            "The sampler and the trainer disagree about the same tokens by {gap} nats a token, before any update: "
            "the log-probs are wrong.",
            "Sampler and trainer must have the same weights, the same temperature and the same tokens, not shifted "
            "by one. Nothing learnt since can be trusted.",
        ),
        "zh": (
            "在任何更新之前，采样器与训练器对同样的词元就相差每词元 {gap} 奈特：对数概率是错的。",
            "采样器与训练器必须使用相同的权重、相同的温度、相同的词元（没有错开一位）。此后学到的都不可信。",
        ),
    },
    "sampling_sharp": {
        "en": (
            "The answers are not samples of the policy: they are {surprise} ± {error} nats a token likelier than "
            "its own samples would be. Sampling used a temperature below 1, top-k or top-p, while the log-probs "
            "did not.",
            "Sample at temperature 1 without top-k and top-p; otherwise the KL becomes negative and the gradient "
            "is that of another policy.",
        ),
        "zh": (
            "这些回答不是从策略本身采样的：它们比策略自己的样本每词元更可能 {surprise} ± {error} 奈特。采样用了低"
            "于 1 的温度、top-k 或 top-p，而对数概率没有。",
            "请以温度 1 采样，不用 top-k 和 top-p；否则 KL 会变为负数，梯度也是另一个策略的。",
        ),
    },
    "sampling_flat": {
        "en": (
            "The answers are not samples of the policy: they are {surprise} ± {error} nats a token less likely "
            "than its own samples would be, as with a temperature above 1 or with answers of another model.",
            "Sample at temperature 1, from the policy's present weights.",
        ),
        "zh": (
            "这些回答不是从策略本身采样的：它们比策略自己的样本每词元更不可能 {surprise} ± {error} 奈特，例如温度"
            "高于 1，或者是别的模型的回答。",
            "请以温度 1、用策略当前的权重采样。",
        ),
    },
    "negative_kl": {
        "en": (
            "The KL is negative ({kl} ± {error} nats an answer, in {rollouts} rollouts), which it cannot be for "
            "samples of the policy: sampling used another distribution (top-k, top-p, a temperature) than the "
            "log-probs.",
            "Sample at temperature 1 without truncation, and check that policy and reference read the same tokens.",
        ),
        "zh": (
            "KL 为负（每个回答 {kl} ± {error} 奈特，共 {rollouts} 轮），而策略自己的样本不可能如此：采样所用的分布"
            "（top-k、top-p 或温度）与对数概率的不同。",
            "请以温度 1 采样、不做截断，并检查策略与参考模型读到的词元是否相同。",
        ),
    },
    "reference_moved": {
        "en": (
            "The reference has changed: its log-prob of a fixed text by {change} nats a token. The KL no longer "
            "says how far the policy is from where it began.",
            "The reference must be a frozen copy (or the base under the adapter): nothing may write to its weights.",
        ),
        "zh": (
            "参考模型变了：它对同一段文本的对数概率每词元变化了 {change} 奈特。KL 不再表示策略离起点有多远。",
            "参考模型必须是冻结的副本（或适配器之下的基座）：任何东西都不得改写它的权重。",
        ),
    },
    "reference_follows": {
        "en": (
            "The KL stays at {kl} nats an answer although the policy moves by {moved} in a rollout: the reference "
            "moves with it.",
            "The reference must be a frozen copy (or the base under the adapter): nothing may write to its weights.",
        ),
        "zh": (
            "策略每轮移动 {moved} 奈特，而 KL 始终停在每个回答 {kl} 奈特：参考模型在跟着它动。",
            "参考模型必须是冻结的副本（或适配器之下的基座）：任何东西都不得改写它的权重。",
        ),
    },
    "equal_rewards": {
        "en": (
            "All answers get the same reward ({reward}) from the start: there is nothing to learn from.",
            "Let the judge score a good and a bad answer by hand. A rule that is always missed needs easier "
            "prompts or more samples; a reward model may have learnt nothing.",
        ),
        "zh": (
            "从一开始所有回答的奖励都相同（{reward}）：没有什么可学。",
            "请手动让评判者给一个好回答和一个坏回答打分。总是不满足的规则需要更容易的提示或更多样本；奖励模型也可能"
            "什么都没学到。",
        ),
    },
    "idle_groups": {
        "en": (
            "In {share} of the groups all answers to the prompt get the same reward, so that they teach nothing.",
            "Take prompts that are neither too easy nor too hard, more samples_per_prompt, or `resample`.",
        ),
        "zh": (
            "在 {share} 的组里，同一提示的所有回答奖励都相同，因此学不到东西。",
            "请选用既不太容易也不太难的提示，增大 samples_per_prompt，或使用 `resample`。",
        ),
    },
    "reward_sign": {
        "en": (
            "Before anything was learnt, the judges liked the policy's samples better than the references of the "
            "same prompts, by {lead} ± {error} (a reference gets {reference}): the reward may point the wrong way.",
            "Check its sign: a weight below 0, a function that gives a cost, rankings read backwards (rank 1 is "
            "best). If the references are no full answers, this means nothing.",
        ),
        "zh": (
            "在学到任何东西之前，评判者就更喜欢策略的样本，而不是同样提示的参考答案，差 {lead} ± {error}（参考答案"
            "得 {reference}）：奖励的方向可能反了。",
            "请检查正负号：权重是否小于 0，函数是否给出的是代价，排序是否读反（名次 1 为最好）。如果参考答案不是完"
            "整的回答，则此条没有意义。",
        ),
    },
    "no_end": {
        "en": (
            "{ended} of the answers end: nearly all are cut off after {tokens} tokens. The end of the turn is not "
            "sampled or not recognised.",
            "Check that SFT's demonstrations end with the end-of-turn token and that it is the tokenizer's; or "
            "raise max_tokens, if answers are meant to be longer.",
        ),
        "zh": (
            "只有 {ended} 的回答会结束：几乎全都在 {tokens} 个词元后被截断。回合结束符没有被采样，或没有被识别。",
            "请检查监督微调的示范是否以回合结束符结尾、且与分词器的一致；如果回答本应更长，请增大 max_tokens。",
        ),
    },
    "learning_rate": {
        "en": (
            "The policy leaps: within a rollout it moves by up to {moved} nats a token, and {clipped} of the "
            "tokens are outside the clip (learning rate {rate}). What is learnt from the rollout is no longer "
            "about this policy.",
            "Lower the learning rate to a third, or take fewer epochs; begin the stage again (--no-resume).",
        ),
        "zh": (
            "策略在跳跃：一轮之内每词元最多移动 {moved} 奈特，{clipped} 的词元超出截断范围（学习率 {rate}）。从这一"
            "轮学到的已经与当前策略无关。",
            "请把学习率降到三分之一，或减少 epochs；然后从头开始这个阶段（--no-resume）。",
        ),
    },
    "leap": {
        "en": (
            "The policy leaps: from one rollout to the next its entropy went from {before} to {after} nats a token "
            "(learning rate {rate}).",
            "Lower the learning rate to a third; begin the stage again (--no-resume).",
        ),
        "zh": (
            "策略在跳跃：相邻两轮之间，熵从每词元 {before} 变为 {after} 奈特（学习率 {rate}）。",
            "请把学习率降到三分之一；然后从头开始这个阶段（--no-resume）。",
        ),
    },
    "length": {
        "en": (
            "Reward rises (by {rise}) while answers get longer ({before} to {after} tokens), and longer answers "
            "get more (correlation {correlation}): length exploitation.",
            "Read the best answers. If they only say more, take length out of the reward: pairs of equal length "
            "for the reward model, a weighted penalty on length, or a smaller max_tokens.",
        ),
        "zh": (
            "奖励上升（{rise}）的同时回答变长（{before} 到 {after} 个词元），而且越长得分越高（相关系数 "
            "{correlation}）：这是在钻长度的空子。",
            "请读一读最好的回答。如果只是更长，就把长度从奖励中去掉：用等长的回答对训练奖励模型、加权的长度惩罚，或"
            "更小的 max_tokens。",
        ),
    },
    "empty_answers": {
        "en": (
            "Answers have become nearly empty ({before} to {after} tokens).",
            "Read them: a judge that only takes points off is pleased by silence. Reward what is right, not only "
            "the absence of what is wrong.",
        ),
        "zh": (
            "回答几乎变空（{before} 到 {after} 个词元）。",
            "请读一读：只会扣分的评判者对沉默最满意。请奖励正确，而不只是没有错误。",
        ),
    },
    "critic": {
        "en": (
            "The critic explains nothing: {explained} of the returns' variance; it expects {value}, the returns "
            "are {returns}.",
            "Warm it up (critic_warmup), raise value_weight, or use a critic of its own; GRPO and RLOO need none.",
        ),
        "zh": (
            "价值网络什么都没有解释：只占回报方差的 {explained}；它的预期是 {value}，而回报是 {returns}。",
            "请先预热（critic_warmup）、增大 value_weight，或使用独立的价值网络；GRPO 和 RLOO 不需要它。",
        ),
    },
    "critic_explains": {
        "en": (
            "The critic explains nothing: {explained} of the returns' variance.",
            "Warm it up (critic_warmup), raise value_weight, or use a critic of its own; GRPO and RLOO need none.",
        ),
        "zh": (
            "价值网络什么都没有解释：只占回报方差的 {explained}。",
            "请先预热（critic_warmup）、增大 value_weight，或使用独立的价值网络；GRPO 和 RLOO 不需要它。",
        ),
    },
    "entropy": {
        "en": (
            "The entropy collapsed, from {before} to {after} nats a token: all answers to a prompt are nearly the "
            "same, and nothing new is tried.",
            "Lower the learning rate, hold the policy nearer its reference (kl.target, kl.coefficient), or raise "
            "clip_high.",
        ),
        "zh": (
            "熵崩塌了，从每词元 {before} 到 {after} 奈特：同一提示的回答几乎都一样，不再尝试新的东西。",
            "请降低学习率，让策略离参考模型更近（kl.target、kl.coefficient），或增大 clip_high。",
        ),
    },
    "repetition": {
        "en": (
            "Answers repeat themselves: {after} of their four-token runs were there before, {before} at the start.",
            "Read the best answers. A judge that likes repetition is being exploited; otherwise the learning rate "
            "is too high.",
        ),
        "zh": (
            "回答在自我重复：{after} 的四词元片段此前已出现过，开始时为 {before}。",
            "请读一读最好的回答。可能是在钻评判者喜欢重复的空子；否则就是学习率太高。",
        ),
    },
    "ending": {
        "en": (
            "Fewer and fewer answers end by themselves: {before} at the start, {after} now.",
            "Raise missing_end_penalty, or look whether longer answers get more.",
        ),
        "zh": (
            "能自己结束的回答越来越少：开始时 {before}，现在 {after}。",
            "请增大 missing_end_penalty，或看看是否越长的回答得分越高。",
        ),
    },
    "kl": {
        "en": (
            "The policy ran away: {kl} nats an answer of {tokens} tokens from its reference, where no judge has "
            "seen anything.",
            "Raise kl.coefficient or set kl.target; judge the answers by another measure before you believe the "
            "reward.",
        ),
        "zh": (
            "策略跑远了：每个回答（{tokens} 个词元）离参考模型 {kl} 奈特，那里是评判者从未见过的地方。",
            "请增大 kl.coefficient 或设置 kl.target；在相信奖励之前，先用别的标准评判这些回答。",
        ),
    },
    "kl_stop": {
        "en": (
            "The run ended early: the KL ({kl} nats an answer) passed kl.stop ({stop}).",
            "Lower the learning rate or raise kl.coefficient; raise kl.stop only if the answers are still good.",
        ),
        "zh": (
            "运行提前结束：KL（每个回答 {kl} 奈特）超过了 kl.stop（{stop}）。",
            "请降低学习率或增大 kl.coefficient；只有在回答仍然好的情况下才增大 kl.stop。",
        ),
    },
    "kl_target": {
        "en": (
            "The KL ({kl} nats an answer) is far beyond its target ({target}): the penalty does not hold the policy.",
            "Raise kl.coefficient or lower the learning rate; a smaller kl.horizon lets the penalty follow faster.",
        ),
        "zh": (
            "KL（每个回答 {kl} 奈特）远超目标（{target}）：惩罚拉不住策略。",
            "请增大 kl.coefficient 或降低学习率；更小的 kl.horizon 会让惩罚跟得更快。",
        ),
    },
    "falling": {
        "en": (
            "The reward falls, from {before} to {after}.",
            "Lower the learning rate first. If it still falls, the KL penalty outweighs the reward "
            "(kl.coefficient), or the judges are not the same all the time.",
        ),
        "zh": (
            "奖励在下降，从 {before} 到 {after}。",
            "先降低学习率。如果仍然下降，则是 KL 惩罚压过了奖励（kl.coefficient），或评判者前后不一致。",
        ),
    },
    "unknown_sign": {
        "en": (
            "Whether the reward points the right way is not known: there were no references to compare it with.",
            "Read the best and the worst answers, or give prompts a `reference`.",
        ),
        "zh": (
            "无法知道奖励的方向是否正确：没有可供比较的参考答案。",
            "请读一读最好和最差的回答，或为提示加上 `reference`。",
        ),
    },
    "time": {
        "en": (
            "Time: sampling {sampling}, judging {judging}, log-probs and values {scoring}, updates {update}.",
            "",
        ),
        "zh": (
            "用时：采样 {sampling}，评判 {judging}，对数概率与价值 {scoring}，更新 {update}。",
            "",
        ),
    },
}
