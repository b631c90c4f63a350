"""
``rlx2 compress``: the smallest agent whose return stays within a tolerance of dense, the paper's ultimate compression ratio.

What is asked: minimise the size, which the two densities fix exactly, subject to a mean return that only whole trainings tell,
one noisy number each. So

1. **Scale.** The random policy is measured and the dense agent trained on several seeds (or given). A return ``R`` scores
   ``(R - random) / (dense - random)``, which orders negative returns too, where "97 % of the return" means nothing.
2. **Search.** One training per point: with two parameters and noise it pays to look at many places once, not at few places
   often. The first points are spread evenly; TPE then minimises the size among those within tolerance, which are kept apart
   from the others as a constraint and not mixed into one number with a weight that somebody would have to choose. A training
   that is hopeless on its way is stopped (``sampling.py``). What a limit of bytes (``--max-bytes``) leaves no room for is
   never trained: densities end lower, and those that are still too much go down in one proportion.
3. **Finalists.** The smallest points of a noisy search are those that were both small and lucky; their own return proves
   nothing. So the search only nominates. Nominees are trained again on fresh seeds, smallest first, and the first whose mean
   over these seeds scores ``1 - tolerance`` is chosen. Each attempt is one more chance to pass by luck, so they are few: after
   a failure the next finalist is a good deal larger (near twins of a failed agent are no new evidence; where the search has
   no larger one, the failed one grows), their number has a limit, and none gets more seeds until it passes. A finalist ends
   early only when even the best score ever seen, on each seed to come, would not save it, which turns no failure into a pass.
   What luck remains is shown: how many finalists were tried, and the confidence interval of the chosen one's score, which
   holds the noise of the dense and random means as well (Fieller's theorem, ``statistics.py``).

``tests/test_compress_search.py`` runs the whole procedure on noisy landscapes whose optimum is known.

Each training is a trial of one of several Optuna studies (the dense seeds, the search, one per finalist), so its place fixes
its seed, and any number of workers can take part, die, and come back: :mod:`sb3_rlx2.studies` sees to it that each happens
once. An interrupted training goes on from its checkpoint, or starts again from its seed, and comes out the same either way.
"""
