"""Documents packed into training rows, in an order that only seed and epoch decide."""

import functools

import numpy as np

from model.tokenizer import END_OF_TEXT


class PackedTokens:
    """Holds a split's documents and cuts them into rows of `context` + 1 tokens.

    An epoch's documents are shuffled and joined end to end behind one `<|endoftext|>`, and the
    stream is cut into rows that share one token with their neighbour: a row's last token is
    the next row's first. So each token is a target exactly once an epoch and nothing is
    dropped; only the last row is filled up, with weight 0. Then the rows are shuffled too, as
    one document's rows stand next to each other and a batch should not be one document.

    Args:
        tokens: int [N]: all documents' tokens, each ending with `<|endoftext|>`.
        lengths: int [M]: tokens of each document; they sum to N.
        context: Tokens that the model sees at once.
        end_of_text: The id that ends documents.

    Raises:
        ValueError: There are fewer tokens than one context, or the lengths don't add up.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        lengths: np.ndarray,
        context: int,
        end_of_text: int = END_OF_TEXT,
    ) -> None:
        if lengths.sum() != len(tokens):
            raise ValueError(f"lengths sum to {lengths.sum()}, but there are {len(tokens)} tokens")
        if len(tokens) < context:
            raise ValueError(
                f"a split must hold at least one context of {context} tokens, "
                f"got {len(tokens)} tokens in {len(lengths)} documents"
            )
        self._tokens = tokens
        self._lengths = lengths
        self._ends = np.cumsum(lengths)
        self.end_of_text = end_of_text
        self.context = context
        self.num_tokens = len(tokens)
        self.num_rows = -(-len(tokens) // context)
        self._epoch_order = functools.lru_cache(maxsize=2)(self._shuffle)

    def batch(self, seed: int, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns rows `first` to `first + count` of the endless sequence of epochs.

        Returns:
            ids: int32 [count, context + 1].
            weights: float32 [count, context]: 1 where `ids[:, 1:]` is a target, 0 where filled.
        """
        ids = np.full((count, self.context + 1), self.end_of_text, np.int32)
        weights = np.zeros((count, self.context), np.float32)
        for index in range(count):
            epoch, position = divmod(first + index, self.num_rows)
            length = self._read_row(seed, epoch, position, ids[index])
            weights[index, : length - 1] = 1.0
        return ids, weights

    def _shuffle(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns an epoch's documents, where each ends in the stream, and its order of rows."""
        generator = np.random.default_rng([seed, epoch])
        documents = generator.permutation(len(self._lengths))
        ends = np.cumsum(self._lengths[documents])
        return documents, ends, generator.permutation(self.num_rows)

    def _read_row(self, seed: int, epoch: int, position: int, row: np.ndarray) -> int:
        """Writes a row's tokens into the beginning of `row`, and returns how many they are."""
        documents, ends, rows = self._epoch_order(seed, epoch)
        # The stream's first token is the `<|endoftext|>` before all documents: a row that starts
        # at `begin` of the documents takes one token more, from before it.
        first = int(rows[position]) * self.context - 1
        end = min(first + 1 + self.context, self.num_tokens)
        if first < 0:
            row[0] = self.end_of_text
        start = max(first, 0)
        index = int(ends.searchsorted(start, side="right"))
        while start < end:
            document = documents[index]
            document_end = int(ends[index])
            stop = min(end, document_end)
            offset = int(self._ends[document]) - document_end
            row[start - first : stop - first] = self._tokens[start + offset : stop + offset]
            start = stop
            index += 1
        return end - first
