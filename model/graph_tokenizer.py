"""GPT-2's tokenizer in a TensorFlow graph, of core TensorFlow's ops alone: text in, text out.

It gives what tiktoken's `encode_ordinary` makes of `bytes.decode("utf-8", errors="replace")`. The
tables, 3 MB, are constants and not variables: they never change, so that they belong to the graph
and not among the weights of a checkpoint.
"""

# Shapes: B texts, N characters and M bytes of all texts, T tokens.

import tensorflow as tf

from model.byte_pairs import BytePairs
from model.character_classes import character_classes
from model.checks import check, check_lengths
from model.split_pattern import word_starts
from model.tokenizer import VOCAB_SIZE, gpt2_encoding

# The least code points that take one, two, three and four bytes of UTF-8 (RFC 3629, section 3).
_LEAST = (0, 0x80, 0x800, 0x10000)


class GraphTokenizer(tf.Module):
    """GPT-2's tokenizer as graph functions, to be part of a SavedModel."""

    def __init__(self) -> None:
        super().__init__()
        encoding = gpt2_encoding()
        single_bytes = [encoding.encode_single_token(bytes([value])) for value in range(256)]
        self._id_of_byte = tf.constant(single_bytes, tf.int32)
        self._bytes_of_id = tf.constant(encoding.decode_tokens_bytes(range(VOCAB_SIZE)))
        self._class_of_character = tf.constant(character_classes())
        self._byte_pairs = BytePairs()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def encode(self, texts_B: tf.Tensor) -> tf.RaggedTensor:
        """Returns int32 [B, (T)]: the tokens of each text; none for an empty one.

        The characters `<|endoftext|>` are text. What is no UTF-8 is read as U+FFFD, in the number
        that Unicode recommends (chapter 3, "U+FFFD Substitution of Maximal Subparts").
        """
        characters = tf.strings.unicode_decode(texts_B, "UTF-8", errors="replace")
        codes_N, row_N = characters.flat_values, characters.value_rowids()
        is_first_N = tf.range(tf.size(codes_N, tf.int64)) == tf.gather(
            characters.row_starts(), row_N
        )
        classes_N = tf.cast(tf.gather(self._class_of_character, codes_N), tf.int32)
        starts_N = word_starts(codes_N, classes_N, is_first_N)

        bytes_M = tf.io.decode_raw(tf.strings.unicode_encode(codes_N, "UTF-8"), tf.uint8)
        size_N = tf.reduce_sum([tf.cast(codes_N >= least, tf.int32) for least in _LEAST], 0)
        character_M = tf.repeat(tf.range(tf.size(codes_N)), size_N)
        end_N = tf.cumsum(size_N) - 1
        # A word's last byte: the last one of a character before the start of another word.
        is_end_M = tf.gather(tf.roll(starts_N, -1, 0), character_M) & (
            tf.gather(end_N, character_M) == tf.range(tf.size(bytes_M))
        )
        ids_M = tf.gather(self._id_of_byte, tf.cast(bytes_M, tf.int32))
        ids_T, end_T = self._byte_pairs.merge(ids_M, is_end_M)
        row_T = tf.gather(row_N, tf.gather(character_M, end_T))
        return tf.RaggedTensor.from_value_rowids(
            ids_T, row_T, tf.size(texts_B, tf.int64), validate=False
        )

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([None], tf.int32),
        ]
    )
    def decode(self, ids_BT: tf.Tensor, lengths_B: tf.Tensor) -> tf.Tensor:
        """Returns string [B]: the bytes of each row's tokens, which need not be whole characters.

        Args:
            ids_BT: int32 [B, T]: what stands beyond a row's length is ignored.
            lengths_B: int32 [B]: tokens of each row.

        Raises:
            tf.errors.InvalidArgumentError: When it runs: an id is not in the vocabulary, or a
                length is not that of a part of the row.
        """
        with tf.control_dependencies(check_lengths(ids_BT, lengths_B, least=0)):
            is_token_BT = tf.sequence_mask(lengths_B, tf.shape(ids_BT)[1])
        bytes_BT = self.token_bytes(tf.where(is_token_BT, ids_BT, 0))
        return tf.strings.reduce_join(tf.where(is_token_BT, bytes_BT, ""), axis=1)

    def token_bytes(self, ids: tf.Tensor) -> tf.Tensor:
        """Returns string, of the shape of `ids`: each token's bytes; `<|endoftext|>` is itself.

        Args:
            ids: int32, of any shape.

        Raises:
            tf.errors.InvalidArgumentError: When it runs: an id is not in the vocabulary.
        """
        is_known = (ids >= 0) & (ids < VOCAB_SIZE)
        wrong = tf.boolean_mask(ids, ~is_known)
        message = "ids must be from 0 to {}, got {}"
        with tf.control_dependencies(
            [check(tf.reduce_all(is_known), message, [VOCAB_SIZE - 1, wrong])]
        ):
            return tf.gather(self._bytes_of_id, ids)
