"""Faults that strike a running process from outside, and whether a run that went on after one ended as an undisturbed one.

Nothing of the pipeline is replaced: a process is killed, its disk is full, its memory is limited, its store cannot be reached,
its artefacts change on the disk, its clock jumps.
"""
