"""See, correct, retrain: a folder of corrected images, and the model that learns from them."""
