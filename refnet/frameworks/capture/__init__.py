"""Making captures: what is asked of whom (sources.py), the folder that the values go into (writer.py)."""
