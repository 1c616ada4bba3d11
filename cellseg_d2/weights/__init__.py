"""Read weights without running code, adapt them to a network, and package models for sharing."""
