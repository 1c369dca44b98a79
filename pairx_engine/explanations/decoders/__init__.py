"""Decoders from embeddings to small pictures, learned from a catalogue."""

from pairx_engine.explanations.decoders.decoder import (
    Decoder,
    Errors,
    Kind,
    decoder_of,
    errors_of,
    recipe_of,
    train_decoder,
)
from pairx_engine.explanations.decoders.lessons import Lessons, embedded, gather
from pairx_engine.explanations.decoders.maps import CHANNELS, Channels, decoded, scaled

__all__ = [
    "CHANNELS",
    "Channels",
    "Decoder",
    "Errors",
    "Kind",
    "Lessons",
    "decoded",
    "decoder_of",
    "embedded",
    "errors_of",
    "gather",
    "recipe_of",
    "scaled",
    "train_decoder",
]
