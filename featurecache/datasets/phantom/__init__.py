"""Phantom: synthetic chest radiographs with 14 findings, generated from a seed.

An image is simulated the way a radiograph is taken. ``anatomy`` describes a patient, ``chest``
computes how much air, soft tissue and bone each ray crosses, the findings change these layers, and
``radiograph`` turns their attenuation into pixels. So structures superimpose as in a real
radiograph, and an opacity is missing air instead of white paint.
"""
