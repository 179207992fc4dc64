"""Paper tables: what a paper printed beside what we measure, run where it is missing, with verdicts by rule."""
