"""What a network says about one image, and the fusion of what several say."""
