"""OpenVINO's IR: an .xml with the layers and the .bin beside it with the constants."""
