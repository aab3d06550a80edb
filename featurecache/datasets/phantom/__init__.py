"""The embedded data set: synthetic chest radiographs with the 14 findings, drawn from a seed.

A film is drawn as it is taken. ``anatomy`` says how a patient is built, ``chest`` lays out how
much air, soft tissue and bone each ray crosses, the findings change that, and ``film`` sums it up
and develops it: overlays superpose as they do in a radiograph, and an opacity is air that has
gone, not white paint.
"""
