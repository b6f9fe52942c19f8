"""Exchange with Biom3d 0.1.2: its options, configurations, model folders and preprocessed data sets, both ways.

Facts about its files and its algorithm (https://github.com/GuillaumeMougeot/biom3d); none of its code is used.
"""
