"""What readers of image files share: lazy images with affines, label maps found by name, data sets, sidecars."""
