"""Programs that wrote what the package ships."""
