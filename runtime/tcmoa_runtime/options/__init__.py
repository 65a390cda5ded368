"""The choices of each command as one frozen dataclass.

A class is validated once, in `__post_init__`, and passed whole from there on. The command line builds its options from
the fields (`tcmoa_runtime.cli.options.takes_options`), and the packages above the runtime take the same objects, so a
new option is one field here and its use there.
"""
