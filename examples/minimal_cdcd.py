"""A continuous diffusion language model on one page: embeddings, Gaussian noise, network, training, sampling.

    python examples/minimal_cdcd.py              a built-in language; about 15 seconds on one core
    python examples/minimal_cdcd.py my.txt       your own text, one short sentence per line

Continuous diffusion (Dieleman et al. 2022, https://arxiv.org/abs/2211.15089) gives each token a vector and adds
Gaussian noise to it. A network sees the noisy vectors and predicts the token behind each. To sample, start with noise
alone and move every vector, step by step, towards the mean vector of its predicted tokens.

Read minimal_mdlm.py first: steps 1, 4 and 5 are the same but for the names of the parts.
"""

import sys
from pathlib import Path

import torch
from minimal_mdlm import SENTENCES

from textdiffusion.core.batch import Batch
from textdiffusion.core.randomness import Rng
from textdiffusion.diffusion.codecs import EmbeddingCodec
from textdiffusion.diffusion.densities import UniformDensity
from textdiffusion.diffusion.gaussian import GaussianProcess
from textdiffusion.diffusion.model import DiffusionModel
from textdiffusion.diffusion.sigma_schedules import LogSigma
from textdiffusion.networks.embedding_denoiser import EmbeddingDenoiser
from textdiffusion.networks.output_heads import X0LogitsHead
from textdiffusion.networks.transformer import Transformer
from textdiffusion.objectives.embedding_losses import ScoreInterpolation
from textdiffusion.samplers.base import Request
from textdiffusion.samplers.ddim import DDIM


def main(sentences: list[str] = SENTENCES, steps: int = 1000, num: int = 8) -> tuple[list[float], list[str]]:
    """Trains on `sentences` for `steps` steps. Returns the loss of each step (nats per token) and `num` samples."""
    # 1. Text to numbers. A token is a word, and shorter sentences are filled up with an empty token.
    rows = [sentence.split() for sentence in sentences]
    length = max(len(row) for row in rows)
    vocab = ["", *sorted({word for row in rows for word in row})]
    number = {word: i for i, word in enumerate(vocab)}
    data = torch.tensor([[number[word] for word in row + [""] * (length - len(row))] for row in rows])

    # 2. The embeddings, one row of a table per token. They are learned, but their norm is fixed: embeddings that may
    #    grow would make the noise negligible.
    torch.manual_seed(0)
    codec = EmbeddingCodec(torch.randn(len(vocab), 16), learned=True, normalise="l2")

    # 3. The noise: x_t = x_0 + sigma(t) * eps. Sigma runs from 0.1 norms (every token can be read) to 10 (none can).
    process = GaussianProcess(LogSigma(0.1 * codec.norm, 10.0 * codec.norm))

    # 4. The network: a transformer that also receives the noise level (`adaln`) and predicts the token behind each
    #    vector.
    backbone = Transformer(width=64, depth=2, modulation="adaln", cond_dim=32)
    head = X0LogitsHead(backbone.width, codec)
    denoiser = EmbeddingDenoiser(backbone, process, codec, output_head=head, self_conditioning=False)
    model = DiffusionModel(codec, process, UniformDensity(), denoiser)

    # 5. Training. The loss is the plain cross-entropy of the tokens, averaged over noise levels. It never reaches 0: at
    #    high noise nothing can be known but how frequent the words are.
    objective = ScoreInterpolation()
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

    # 6. Sampling: start from noise alone. Each step of DDIM lowers the noise a little, along the line that leads to the
    #    predicted mean vector. All words are decided together, and any of them may change until the end.
    model.eval()
    request = Request.blank(num, length, steps=50)
    with torch.no_grad():
        for step in DDIM()(model, request, rng=Rng.of(1, num)):
            texts = [" ".join(vocab[i] if i < len(vocab) else "____" for i in row) for row in step.tokens.tolist()]
            if step.index % 10 == 0:
                print(f"step {step.index:2} of {step.total}   {texts[0]}")
    return losses, [text.strip() for text in texts]


if __name__ == "__main__":
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines() if len(sys.argv) > 1 else SENTENCES
    losses, texts = main(lines)
    print("\n".join(texts))
