"""`refnet learn`: one self-contained HTML page that computes both digits networks with refnet's bits.

page.py      templates, styles and modules into one file
networks.py  graphs, weights and books as data for the page
pictures.py  static drawings (SVG), for readers without JavaScript
facts.json   numbers that refnet computed for the text; tests/learn/facts.py makes it
js/          the page's modules: float32, the interpreter, the chapters
"""
