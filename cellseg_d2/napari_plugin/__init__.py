"""The plugin for napari: segment, correct and retrain on the screen. Only here Qt and napari are imported."""
