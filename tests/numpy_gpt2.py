"""GPT-2's forward pass in float64 NumPy, written from the papers, for tests to compare with.

One sequence at a time and one head at a time: slow, and hard to get wrong.
"""

# Shapes: T positions, D embedding width, H head width, F feed-forward width, V vocabulary.

from typing import Any

import numpy as np

Weights = dict[str, np.ndarray]


class NumpyGPT2:
    """A copy of a model's weights, and what GPT-2 makes of them."""

    def __init__(self, model: Any) -> None:
        self.num_heads: int = model.config.num_heads
        self.epsilon: float = model.config.layer_norm_epsilon
        self.token_embedding_VD = float64(model.token_embedding.embeddings)
        self.position_embedding_TD = float64(model.position_embedding.embeddings)
        self.blocks = [block_weights(block) for block in model.blocks]
        self.final_gamma_D = float64(model.final_norm.gamma)
        self.final_beta_D = float64(model.final_norm.beta)

    def hidden_states(self, ids_T: Any) -> np.ndarray:
        """[T, D]: what the output projection reads."""
        x_TD = self.token_embedding_VD[list(ids_T)] + self.position_embedding_TD[: len(ids_T)]
        for weights in self.blocks:
            x_TD = block(x_TD, weights, self.num_heads, self.epsilon)
        return layer_norm(x_TD, self.final_gamma_D, self.final_beta_D, self.epsilon)

    def logits(self, ids_T: Any) -> np.ndarray:
        """[T, V]."""
        return self.hidden_states(ids_T) @ self.token_embedding_VD.T

    def nll(self, inputs_T: Any, targets_T: Any) -> np.ndarray:
        """[T]: -log p of each target in nats."""
        return -log_softmax(self.logits(inputs_T))[np.arange(len(targets_T)), list(targets_T)]

    def parameters(self) -> Weights:
        """Every array by a name, not copied: what is written into one changes the model."""
        named = {
            "token_embedding/embeddings": self.token_embedding_VD,
            "position_embedding/embeddings": self.position_embedding_TD,
            "final_norm/gamma": self.final_gamma_D,
            "final_norm/beta": self.final_beta_D,
        }
        for index, weights in enumerate(self.blocks):
            named |= {f"block_{index}/{name}": array for name, array in weights.items()}
        return named


def windows_nll(model: NumpyGPT2, document: list[int], stride: int, end: int = 50256) -> float:
    """-log p of all tokens, each from those that its window shows: the first that reaches it.

    Windows begin at 0, stride, 2 * stride, ... and see a context of tokens, the first of them being
    the one before the window; before the document that is `end`.
    """
    shown, context = [end, *document], len(model.position_embedding_TD)
    total = 0.0
    for position, token in enumerate(document):
        begin = 0
        while position >= begin + context:
            begin += stride
        hidden_D = model.hidden_states(shown[begin : position + 1])[-1]
        total -= log_softmax(model.token_embedding_VD @ hidden_D)[token]
    return total


def plain_greedy(
    model: NumpyGPT2, prompt: list[int], max_new_tokens: int, end: int = 50256
) -> list[int]:
    """The likeliest token, again and again, up to `end`, which is left out."""
    ids = list(prompt)
    for _ in range(max_new_tokens):
        token = int(model.logits(ids)[-1].argmax())
        if token == end:
            break
        ids.append(token)
    return ids[len(prompt) :]


def float64(variable: Any) -> np.ndarray:
    return np.array(variable, np.float64)


def dense_weights(prefix: str, layer: Any) -> Weights:
    return {f"{prefix}/kernel": float64(layer.kernel), f"{prefix}/bias": float64(layer.bias)}


def norm_weights(prefix: str, layer: Any) -> Weights:
    return {f"{prefix}/gamma": float64(layer.gamma), f"{prefix}/beta": float64(layer.beta)}


def attention_weights(layer: Any) -> Weights:
    return dense_weights("attention/query_key_value", layer.query_key_value) | dense_weights(
        "attention/output_projection", layer.output_projection
    )


def feed_forward_weights(layer: Any) -> Weights:
    return dense_weights("feed_forward/expansion", layer.expansion) | dense_weights(
        "feed_forward/output_projection", layer.output_projection
    )


def block_weights(layer: Any) -> Weights:
    return {
        **norm_weights("attention_norm", layer.attention_norm),
        **attention_weights(layer.attention),
        **norm_weights("feed_forward_norm", layer.feed_forward_norm),
        **feed_forward_weights(layer.feed_forward),
    }


def layer_norm(
    x_TD: np.ndarray, gamma_D: np.ndarray, beta_D: np.ndarray, epsilon: float
) -> np.ndarray:
    mean_T1 = x_TD.mean(axis=-1, keepdims=True)
    variance_T1 = ((x_TD - mean_T1) ** 2).mean(axis=-1, keepdims=True)
    return (x_TD - mean_T1) / np.sqrt(variance_T1 + epsilon) * gamma_D + beta_D


def softmax(scores: np.ndarray) -> np.ndarray:
    exponents = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def dense(x: np.ndarray, weights: Weights, prefix: str) -> np.ndarray:
    return x @ weights[f"{prefix}/kernel"] + weights[f"{prefix}/bias"]


def attention(x_TD: np.ndarray, weights: Weights, num_heads: int) -> np.ndarray:
    query_TD, key_TD, value_TD = np.split(
        dense(x_TD, weights, "attention/query_key_value"), 3, axis=1
    )
    head_width = x_TD.shape[1] // num_heads
    mixed_TD = np.zeros_like(x_TD)
    for head in range(num_heads):
        columns = slice(head * head_width, (head + 1) * head_width)
        for position in range(len(x_TD)):
            visible = slice(0, position + 1)
            scores = key_TD[visible, columns] @ query_TD[position, columns] / np.sqrt(head_width)
            mixed_TD[position, columns] = softmax(scores) @ value_TD[visible, columns]
    return dense(mixed_TD, weights, "attention/output_projection")


def feed_forward(x_TD: np.ndarray, weights: Weights) -> np.ndarray:
    hidden_TF = gelu(dense(x_TD, weights, "feed_forward/expansion"))
    return dense(hidden_TF, weights, "feed_forward/output_projection")


def block(x_TD: np.ndarray, weights: Weights, num_heads: int, epsilon: float) -> np.ndarray:
    def norm(x_TD: np.ndarray, prefix: str) -> np.ndarray:
        return layer_norm(x_TD, weights[f"{prefix}/gamma"], weights[f"{prefix}/beta"], epsilon)

    x_TD = x_TD + attention(norm(x_TD, "attention_norm"), weights, num_heads)
    return x_TD + feed_forward(norm(x_TD, "feed_forward_norm"), weights)
