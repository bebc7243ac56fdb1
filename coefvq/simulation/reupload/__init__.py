"""Simulated re-uploads: originals and unoriginal copies of them, with the ground truth (issue ucc).

From any folder of clips it makes re-encoded originals (``label_ucc`` 0) and edited copies (``label_ucc`` 1).
Copies carry their original's id in ``source_id``. Splits are grouped by it, so an original and its copies
lie in one split: a model cannot compare a test clip with an original it has seen in training. It must
recognise the traces of editing, and since originals carry edits of their own creators too
(``own_edits``), which kinds of edits go together. What this does not ask for is matching against an
index of known videos; that is another task.

Original and copy go the same way (see ``render``): the same cut to a random length, the same frame rate
and picture size, three encodings by the same encoder, a final file size drawn from one distribution, and
a sound track always. Size, bitrate, fps, duration, picture size and has_audio tell nothing; a test holds
a gradient boosting on them to chance.

The entry is ``generate.reupload``. Nothing is imported here: limited workers start with what they need.
"""
