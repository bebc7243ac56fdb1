"""The source file MLflow stores with every logged model and runs when it loads one.

MLflow's models-from-code need a file that sets the model when it is executed, so this module, unlike
all others, has an effect when imported; nothing in coefvq imports it. Copies of it live on in the store:
``tracking.serve`` and ``serving.open_model`` keep their meaning across versions.
"""

from coefvq.registry import serving, tracking

tracking.serve(serving.open_model)
