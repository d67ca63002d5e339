"""The public interface: a trained run that writes, fills and scores texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Unpack

import torch

from ..core.batch import Batch
from ..core.errors import UserError
from ..data import templates
from ..data.chat import parse_messages
from ..samplers.base import Step
from ..samplers.masked_view import adapt_model
from ..scoring.likelihood import LikelihoodEstimate, bits_per_character
from ..scoring.protocol import COUNTED, Fact, sha256
from ..scoring.windows import Texts
from ..views.frames import Frame, Framer
from ..views.grid import grid_of
from ..views.recording import Recording
from .lengths import propose_lengths
from .options import Generation, OnStep, SamplingKwargs, SamplingOptions, check_stop, replaces_given, truncate
from .prompts import encode_chat, encode_prompt, prompt_batch, sample_prompts
from .revision import Draft, Revision
from .run import Run, check_count
from .studio import Studio

Conversation = str | Sequence[Mapping[str, str]]
"""Messages, each with a role and a content; a text is one message of the user."""


@dataclass(frozen=True, repr=False)
class TextDiffusion(Run):
    """A trained run: `TextDiffusion.from_pretrained("runs/shakespeare").generate(num=4)`.

    Every method that writes takes the options of `SamplingOptions` by name: steps, seed, temperature, sampler, guides,
    top_k and top_p.
    """

    def generate(
        self,
        num: int = 1,
        length: int | None = None,
        *,
        prompt: str | Sequence[str] | None = None,
        source: str | Sequence[str] | None = None,
        label: str | int | None = None,
        stop: str | Sequence[str] = (),
        on_step: OnStep | None = None,
        **options: Unpack[SamplingKwargs],
    ) -> list[str]:
        """`num` texts of `length` tokens each (None: as in training), shorter where the model ends them.

        A text ends before the first of the `stop` texts in it, for every sampler alike: what follows is cut off.
        A `prompt`, or each of several in turn, is given text that the model continues: the result is the continuation
        alone, and no prompt changes what continues another. A conditional run takes a `source`, or several in turn with
        `num` texts for each, or a `label`. `on_step` receives every step; an exception that it raises ends the writing.
        Raises UserError for values that are not allowed, for samplers and guides that the run's process does not allow,
        for a source or a label that the run does not take, or lacks, and for a prompt that leaves no room in a window
        if `length` is open.
        """
        ends = [stop] if isinstance(stop, str) else stop
        check_stop(ends)
        if prompt is not None:
            if not (source is None or isinstance(source, str)):
                raise UserError("Several sources go without a prompt; give the prompts one source.")
            prompts = [prompt] if isinstance(prompt, str) else prompt
            batches = [self.prompt_batch(each, num, length, source=source, label=label) for each in prompts]
            return self._continue(batches, SamplingOptions(**options), ends, on_step)
        batch = self.empty_batch(num, length, source=source, label=label)
        texts = self._write(batch, SamplingOptions(**options), on_step)
        return [truncate(text, ends) for text in texts]

    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        num: int = 1,
        length: int | None = None,
        *,
        label: str | int | None = None,
        stop: str | Sequence[str] = (),
        on_step: OnStep | None = None,
        **options: Unpack[SamplingKwargs],
    ) -> list[str]:
        """`num` answers of at most `length` tokens to a conversation, or to each of several in turn.

        A conversation is a list of messages such as `{"role": "user", "content": "Hello"}`; a text stands for one
        message of the user. The run's chat template writes them, and the answer stops where the model ends its turn.
        Raises UserError for a run without a template, and as `generate` does.
        """
        ends = [stop] if isinstance(stop, str) else stop
        check_stop(ends)
        several = not isinstance(messages, str) and bool(messages) and not isinstance(messages[0], Mapping)
        batches = [
            self.chat_batch(each, num, length, label=label)  # pyrefly: ignore[bad-argument-type]
            for each in (messages if several else [messages])
        ]
        return self._continue(batches, SamplingOptions(**options), ends, on_step)

    def infill(
        self,
        template: str | Sequence[str],
        num: int = 1,
        *,
        source: str | None = None,
        label: str | int | None = None,
        on_step: OnStep | None = None,
        **options: Unpack[SamplingKwargs],
    ) -> list[str]:
        r"""`num` texts for a template such as "The [MASK:5] pear is [MASK:8].", or for each of several in turn.

        [MASK:5] is a gap of five tokens, [MASK] one as long as the model proposes (see `lengths`); `\\[MASK` is literal
        text. The text around gaps is preserved exactly. `infill_warning` says how well this run is prepared for it. A
        run trained on a task also takes a bare question, without gaps, and writes its row; `answer` gives the answer
        alone. `on_step` is that of `generate`. Raises UserError as `generate` does, for malformed templates, and for
        lengths that the run cannot propose.
        """
        sampling = SamplingOptions(**options)
        batch = self.infill_batch(template, num, source=source, label=label, seed=sampling.seed or 0)
        return self._write(batch, sampling, on_step)

    def revise(
        self,
        text: str | Sequence[str],
        num: int = 1,
        *,
        strength: float = 0.3,
        select: str = "random",
        keep: str | Sequence[str] = (),
        source: str | None = None,
        label: str | int | None = None,
        on_step: OnStep | None = None,
        **options: Unpack[SamplingKwargs],
    ) -> list[str]:
        """`num` revisions of a draft, or of each of several in turn: noise is put on it and taken off again.

        `strength` 0 returns the text, 1 keeps only its number of tokens; between them, `Revision.of` says for each
        family what is written anew. `select="suspect"` writes the tokens anew that the model finds least likely given
        all others, as a proof-reader would. Words and phrases to `keep` are preserved wherever they occur. `on_step` is
        that of `generate`. Raises UserError as `generate` does, for an empty text, and for a phrase to keep that no
        draft has.
        """
        texts = [text] if isinstance(text, str) else list(text)
        revision = self.revision(
            texts, num, strength=strength, select=select, keep=keep, source=source, label=label, **options
        )
        if strength == 0.0:
            return [each for each in texts for _ in range(num)]
        return self._run(revision.generation, revision.batch, on_step)

    def revision(
        self,
        text: str | Sequence[str],
        num: int = 1,
        *,
        strength: float = 0.3,
        select: str = "random",
        keep: str | Sequence[str] = (),
        source: str | None = None,
        label: str | int | None = None,
        **options: Unpack[SamplingKwargs],
    ) -> Revision:
        """What `revise` does, ready to run: `decode(step, revision.batch)` reads the last step of `revision.run()`."""
        texts, kept = ([each] if isinstance(each, str) else list(each) for each in (text, keep))
        draft = Draft.of(self, texts, num, keep=kept, source=source, label=label)
        return Revision.of(self, draft, strength, select, SamplingOptions(**options))

    def answer(self, question: str | Sequence[str], num: int = 1, **options: Unpack[SamplingKwargs]) -> list[str]:
        """`num` answers to a question of the task that the run was trained on, or to each of several in turn.

        A sudoku is 81 characters, a dot for each blank; its answer is the complete grid in digits. Raises UserError as
        `infill` does, for a run that was not trained on a task, and for what cannot be a question.
        """
        if self.task is None:
            raise UserError(f"This run was trained on {self.config.text.data}, which is not a task with questions.")
        questions = [question] if isinstance(question, str) else list(question)
        rows = self.infill([self.task.template(each) for each in questions], num, **options)
        return [self.task.task.read_row(row)[1] for row in rows]

    def stream(
        self,
        num: int = 1,
        length: int | None = None,
        *,
        batch: Batch | None = None,
        **options: Unpack[SamplingKwargs],
    ) -> Iterator[Step]:
        """The steps of `generate` from noise to text, all rows at once; `decode` reads the last one.

        `batch` replaces `num` and `length`: `infill_batch` makes it from a template, `empty_batch` from a source or a
        label.
        """
        rows = self.empty_batch(num, length) if batch is None else batch
        return SamplingOptions(**options).resolve(self, rows).run(rows.to(self.device))

    def record(
        self,
        num: int = 1,
        length: int | None = None,
        *,
        batch: Batch | None = None,
        **options: Unpack[SamplingKwargs],
    ) -> Recording:
        """`stream`, recorded: a notebook plays it, `save_html` and `save_gif` write it, `texts` are the results."""
        rows = self.empty_batch(num, length) if batch is None else batch
        framer, grid, frames = Framer(self.tokenizer, rows.condition_mask), grid_of(self.task), list[Frame]()
        for step in self.stream(batch=rows, **options):
            frame = framer.frame(step)
            frames.append(frame if grid is None else grid.broken(frame))
        facts = {"recipe": self.config.recipe, "steps": step.total, "seed": options.get("seed", 0)}
        return Recording(tuple(frames), tuple(self.decode(step, rows)), f"textdiffusion: {self.config.recipe}", facts)

    def studio(self) -> Studio:
        """The studio on this run, in a process of its own; a notebook shows it as the value of a cell.

        Needs the extra `serve`. Raises UserError where it cannot start.
        """
        return Studio(self)

    def score(
        self,
        texts: Sequence[str],
        *,
        prefix: str | Sequence[str] = "",
        given: str = "",
        source: str | None = None,
        label: str | int | None = None,
        seed: int = 0,
        target_error: float = 0.01,
        draws: int | None = None,
        order: str = "",
        per_step: int = 1,
    ) -> list[LikelihoodEstimate]:
        """Bits per character of each text: the exact value where the run has one, else an upper bound with its error.

        `prefix`, one for all texts or one for each, precedes them; `given` is a template that they fill. Then only the
        rest is measured, given the prefix or the template; `infill_warning` says how well this run is prepared for
        that. `source` and `label` are those of a conditional run. All texts are measured with the same random draws, so
        ranking them by `bits` or by `total` is less noisy than their errors suggest. Draws are made until the
        Monte-Carlo error is below `target_error`, or for `draws` (>= 2) passes. An `order` (left, confidence, margin or
        entropy) gives a masked model the exact likelihood of revealing text in this order, `per_step` positions at a
        time (see `samplers.order_likelihood`). Without a prefix, a text longer than a window is cut into windows.
        Raises UserError for an empty text, for characters that the tokenizer lacks, for a text that does not fit after
        its prefix or into its template, for an order that the run does not allow, and for a source or a label as
        `generate` does.
        """
        if isinstance(texts, str):
            raise UserError('score takes a list of texts: score(["some text"]).')
        if draws is not None and draws < 2:
            raise UserError(f"draws is {draws}; an error needs at least 2, and None means as many as needed.")
        label = None if label is None else str(label)
        prefixes = [prefix] * len(texts) if isinstance(prefix, str) else list(prefix)
        if len(prefixes) != len(texts):
            raise UserError(
                f"There are {len(prefixes)} prefixes for {len(texts)} texts; give one for all or one for each."
            )
        if per_step != 1 and not order:
            raise UserError(f"per_step={per_step} has no effect without an order.")
        likelihood, model = self.bound if given else self.likelihood, self.model
        if order:
            likelihood = self.order_likelihood(order, per_step)
            model = adapt_model(likelihood, model, seed)
        scores = []
        for text, before in zip(texts, prefixes, strict=True):
            condition = "\n".join(str(part) for part in (source, label, given or before) if part)
            windows = Texts(
                [text], self.tokenizer, self.config.text, prefix=before, given=given, source=source, label=label
            )
            scores.append(
                bits_per_character(
                    model,
                    windows,
                    likelihood,
                    seed=seed,
                    target_error=target_error,
                    draws=draws,
                    metadata=self._protocol(text, condition),
                )
            )
        return scores

    def _protocol(self, text: str, condition: str) -> dict[str, Fact]:
        """What a score of `text` was measured on."""
        config = self.config.text
        return {
            "sha256": sha256(text),
            "counted": "what is not given" if condition else COUNTED[config.layout],
            "conditions_sha256": sha256(condition) if condition else "nothing",
            "normaliser": config.normaliser,
            "tokenizer": self.tokenizer.kind,
            "layout": config.layout,
            "window": config.length,
            "stride": config.length,
            "weights": self.weights,
        }

    def prompt_batch(
        self,
        prompt: str,
        num: int = 1,
        length: int | None = None,
        *,
        source: str | None = None,
        label: str | int | None = None,
    ) -> Batch:
        """`num` rows of a prompt and `length` free tokens; `decode` gives what continues it."""
        ids, spaced = encode_prompt(self, prompt, source)
        return prompt_batch(self, ids, num, length, spaced=spaced, label=label)

    def chat_batch(
        self,
        messages: Conversation,
        num: int = 1,
        length: int | None = None,
        *,
        label: str | int | None = None,
    ) -> Batch:
        """`num` rows of a conversation and `length` free tokens; `decode` gives the answer."""
        conversation = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        ids = encode_chat(self, parse_messages(conversation, "The conversation"))
        return prompt_batch(self, ids, num, length, label=label)

    def infill_batch(
        self,
        template: str | Sequence[str],
        num: int = 1,
        *,
        source: str | None = None,
        label: str | int | None = None,
        seed: int = 0,
    ) -> Batch:
        """`num` rows for each template or question, with the text around its gaps given, and a source before it.

        `seed` draws the lengths of gaps that the model proposes.
        """
        check_count("num", num)
        asked = [self.as_template(each) for each in ([template] if isinstance(template, str) else template)]
        if not asked:
            raise UserError("The list of templates is empty; give at least one.")
        self.check_size(num * len(asked), max(map(templates.gap_tokens, asked)))
        is_open = [templates.OPEN in templates.parse(each)[:-1] for each in asked]
        if not any(is_open):
            return self.template_batch(asked, num, source=source, label=label)
        sized: list[str] = []  # each row has lengths of its own
        for each, proposes in zip(asked, is_open, strict=True):
            sized += propose_lengths(self, each, num, seed, source, label) if proposes else [each] * num
        batch = self.template_batch(sized, source=source, label=label)
        return replace(batch, row_ids=torch.arange(len(batch.tokens)) % num)

    @property
    def infill_warning(self) -> str | None:
        """What a user should know before infilling with this run (None: nothing, the run is made for it)."""
        if not self.model.process.bidirectional:
            return (
                "This model writes from left to right: what it writes in a gap ignores the text after the gap (if it "
                "writes in blocks, the text after the block)."
            )
        if replaces_given(self.model):
            return (
                "This model was trained without conditioning masks: given tokens are put back at every step, which "
                "fits less well than training with text.mask=mixed."
            )
        return None

    def _continue(
        self, batches: Sequence[Batch], sampling: SamplingOptions, stops: Sequence[str], on_step: OnStep | None
    ) -> list[str]:
        return [each.text for several in sample_prompts(self, batches, sampling, stops, on_step) for each in several]

    def _write(self, batch: Batch, sampling: SamplingOptions, on_step: OnStep | None = None) -> list[str]:
        return self._run(sampling.resolve(self, batch), batch, on_step)

    def _run(self, generation: Generation, batch: Batch, on_step: OnStep | None = None) -> list[str]:
        texts: list[str] = []
        for chunk in self.chunks(batch):
            texts += self.decode(generation.finish(chunk.to(self.device), on_step), chunk)
        return texts
