"""Decoding, once for every model that reads from left to right: greedy search, beam search, sampling."""

from lit_gen.text.decoding.beam import beam_search
from lit_gen.text.decoding.decode import Decoding, decode_stream
from lit_gen.text.decoding.generate import generate
from lit_gen.text.decoding.hypothesis import Hypothesis
from lit_gen.text.decoding.interface import windowed
from lit_gen.text.decoding.one_path import most_probable, one_path
from lit_gen.text.decoding.penalties import GNMTPenalty, LengthPenalty, PowerPenalty
from lit_gen.text.decoding.sampling import Sampler

__all__ = [
    "Decoding",
    "GNMTPenalty",
    "Hypothesis",
    "LengthPenalty",
    "PowerPenalty",
    "Sampler",
    "beam_search",
    "decode_stream",
    "generate",
    "most_probable",
    "one_path",
    "windowed",
]
