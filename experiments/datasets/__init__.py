"""Video data sets, each prepared once into shards of small encoded clips.

A dataset module (`rendered`, `video_folder`, `tfds_sets`) describes what is to be prepared as a
`plan.Plan`; `builder` carries the plan out; `records` reads the result.
"""
