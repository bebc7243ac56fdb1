"""Synthetic short videos drawn from a world whose posteriors P(label | what is shown) are known exactly.

Seven latent factors (``factors``) decide both labels through tables of log-odds (``odds``). Each reaches the
clip through a noisy channel (``channel``) and is then written (``texts``), drawn (``render``) or heard
(``sound``). ``world`` sums the true factors out, for three views: vision, vision and text, all. ``generate``
writes a data set in VideoFolder layout. Because the posteriors are known, label noise can be taken out of a
test figure, and a model can be compared with the best possible scorer of what it sees (``bayes``).
"""

from coefvq.simulation.synthetic.bayes import bayes_table
from coefvq.simulation.synthetic.generate import GenerateSummary, generate

__all__ = ["GenerateSummary", "bayes_table", "generate"]
