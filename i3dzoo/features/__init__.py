"""Extract features of videos: pooled vectors, logits, or averaged activations of any endpoint."""

from i3dzoo.features.extraction import Extractor, Features, extract, extract_video
from i3dzoo.features.folder import FeatureFile, extract_to_folder, feature_names
from i3dzoo.features.presets import (
    FeaturePreset,
    feature_preset,
    feature_preset_names,
    settings_with,
)
from i3dzoo.features.settings import FeatureSettings

__all__ = [
    "Extractor",
    "FeatureFile",
    "FeaturePreset",
    "FeatureSettings",
    "Features",
    "extract",
    "extract_to_folder",
    "extract_video",
    "feature_names",
    "feature_preset",
    "feature_preset_names",
    "settings_with",
]
