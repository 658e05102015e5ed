"""NVIDIA TAO's action_recognition specs: reading them, training by them, and writing them."""
