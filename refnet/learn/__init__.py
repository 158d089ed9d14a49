"""`refnet learn`: one self-contained HTML page that computes both digits networks with refnet's bits.

page.py      templates, styles and modules into one file
words.py     numbers in the text
networks.py  graphs, weights and books as data for the page
pictures.py  static drawings (SVG), for readers without JavaScript
facts.json, exercises.json   numbers that refnet computed for the text; tests/learn makes them
js/          the page's modules: float32, the interpreter, the chapters
"""
