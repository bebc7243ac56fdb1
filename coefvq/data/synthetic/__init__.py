"""Synthetic short videos drawn from a world whose posterior P(label | factors) is known exactly.

Seven latent factors (``factors``) decide both labels through a table of log-odds (``world``); each clip
shows its factors as text, pictures and sound (``texts``, ``render``, ``sound``). ``generate`` writes a
data set in VideoFolder layout. Because the posterior is known, label noise can be taken out of a test
figure and a model can be compared with the best possible scorer.
"""

from coefvq.data.synthetic.generate import GenerateSummary, generate
from coefvq.data.synthetic.world import bayes_table

__all__ = ["GenerateSummary", "bayes_table", "generate"]
