"""Sequence models: n-gram and neural language models, sequence to sequence, decoding."""

from lit_gen.text.additive import Additive
from lit_gen.text.cache import Cache, TensorCache
from lit_gen.text.convolutional_encoder import ConvolutionalEncoder
from lit_gen.text.decoding import Decoding, GNMTPenalty, Hypothesis, PowerPenalty, beam_search, decode_stream, generate
from lit_gen.text.encoded import Encoded
from lit_gen.text.feed_forward_features import FeedForwardFeatures
from lit_gen.text.kneser_ney import KneserNey
from lit_gen.text.kv_cache import KVCache
from lit_gen.text.language_model import LanguageModel
from lit_gen.text.multi_head_attention import CrossAttention, SelfAttention
from lit_gen.text.ngram import NGram
from lit_gen.text.prefix_average import PrefixAverage
from lit_gen.text.recurrent_decoder import RecurrentDecoder
from lit_gen.text.recurrent_encoder import RecurrentEncoder
from lit_gen.text.recurrent_features import RecurrentFeatures
from lit_gen.text.schedules import ExponentialDecay, InverseSigmoidDecay, InverseSquareRoot, LinearDecay, WarmupCosine
from lit_gen.text.scores import AdditiveScore, BilinearScore, DotScore, ScaledDotScore
from lit_gen.text.seq2seq import Seq2Seq
from lit_gen.text.transformer import CausalTransformer, TransformerDecoder, TransformerEncoder

__all__ = [
    "Additive",
    "AdditiveScore",
    "BilinearScore",
    "Cache",
    "CausalTransformer",
    "ConvolutionalEncoder",
    "CrossAttention",
    "Decoding",
    "DotScore",
    "Encoded",
    "ExponentialDecay",
    "FeedForwardFeatures",
    "GNMTPenalty",
    "Hypothesis",
    "InverseSigmoidDecay",
    "InverseSquareRoot",
    "KVCache",
    "KneserNey",
    "LanguageModel",
    "LinearDecay",
    "NGram",
    "PowerPenalty",
    "PrefixAverage",
    "RecurrentDecoder",
    "RecurrentEncoder",
    "RecurrentFeatures",
    "ScaledDotScore",
    "SelfAttention",
    "Seq2Seq",
    "TensorCache",
    "TransformerDecoder",
    "TransformerEncoder",
    "WarmupCosine",
    "beam_search",
    "decode_stream",
    "generate",
]
