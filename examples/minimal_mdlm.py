"""A masked diffusion language model on one page: text, noise, network, training, sampling.

    python examples/minimal_mdlm.py              a built-in language; about 15 seconds on one core
    python examples/minimal_mdlm.py my.txt       your own text, one short sentence per line

Masked diffusion (Sahoo et al. 2024, https://arxiv.org/abs/2406.07524) replaces each token by a mask with probability t.
A network sees what is left and predicts the masked tokens. To sample, start with masks only and reveal them step by
step.
"""

import sys
from pathlib import Path

import torch

from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.absorbing import AbsorbingProcess
from textdiffusion.diffusion.alpha_schedules import Linear
from textdiffusion.diffusion.codecs import TokenCodec
from textdiffusion.diffusion.densities import UniformDensity
from textdiffusion.diffusion.model import DiffusionModel
from textdiffusion.networks.token_denoiser import TokenDenoiser
from textdiffusion.networks.transformer import Transformer
from textdiffusion.objectives.masked import MaskedELBO
from textdiffusion.samplers.base import Request
from textdiffusion.samplers.unmasking import Unmasking

# A small language whose words agree in number: "this old dog sleeps .", "these old dogs sleep ."
ADJECTIVES = ["old", "young", "small", "tall", "angry", "happy", "red", "odd", "quiet", "brave", "wise", "blue"]
NOUNS = ["dog", "cat", "bird", "king", "queen", "farmer", "doctor", "owl", "eagle", "ant", "teacher", "sailor"]
VERBS = ["sleep", "sing", "run", "wait", "swim", "dream", "smile", "listen", "arrive", "jump", "read", "cook"]
SENTENCES = [
    sentence
    for adjective in ADJECTIVES
    for noun in NOUNS
    for verb in VERBS
    for sentence in (f"this {adjective} {noun} {verb}s .", f"these {adjective} {noun}s {verb} .")
]


def main(sentences: list[str] = SENTENCES, steps: int = 1000, num: int = 8) -> tuple[list[float], list[str]]:
    """Trains on `sentences` for `steps` steps. Returns the loss of each step (nats per token) and `num` samples."""
    # 1. Text to numbers. A token is a word, and shorter sentences are filled up with an empty token.
    rows = [sentence.split() for sentence in sentences]
    length = max(len(row) for row in rows)
    vocab = ["", *sorted({word for row in rows for word in row})]
    number = {word: i for i, word in enumerate(vocab)}
    data = torch.tensor([[number[word] for word in row + [""] * (length - len(row))] for row in rows])

    # 2. The noise: at time t, in [0, 1], each token has become a mask with probability t.
    process = AbsorbingProcess(len(vocab), Linear())

    # 3. The network: a transformer that sees the text with its masks and predicts the token behind every one of them.
    torch.manual_seed(0)
    denoiser = TokenDenoiser(Transformer(width=64, depth=2), process)
    model = DiffusionModel(TokenCodec(len(vocab)), process, UniformDensity(), denoiser)

    # 4. Training. The loss is the cross-entropy at the masks, weighted by 1/t: a bound on -log p(text). The weight is
    #    cut at 3, because texts with few masks would otherwise make the gradient noisy.
    objective = MaskedELBO(max_weight=3.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    losses = []
    for step in range(steps):
        batch = Batch(data[torch.randint(len(data), (64,))])
        loss = objective(model, batch, rng=Rng.of(0, 64).fork(step)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        losses.append(loss.item())
        if step % 100 == 0:
            print(f"step {step:4}   loss {loss.item():.3f} nats per token")

    # 5. Sampling: start from masks only; each step reveals one token per row, first where the network is surest.
    model.eval()
    request = Request.blank(num, length, steps=length)
    with torch.no_grad():
        for step in Unmasking(order="entropy")(model, request, rng=Rng.of(1, num)):
            texts = [" ".join(vocab[i] if i < len(vocab) else "____" for i in row) for row in step.tokens.tolist()]
            print(f"step {step.index} of {step.total}   {texts[0]}")
    return losses, [text.strip() for text in texts]


if __name__ == "__main__":
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines() if len(sys.argv) > 1 else SENTENCES
    losses, texts = main(lines)
    print("\n".join(texts))
