"""Fine-tuning from an uploaded file: whether the file is right, what its size means for training, and who grades.

`lines` and `examples` read the file, `file_check` says what is wrong with it, `defaults` turns "auto" into numbers,
`graders` judge answers in reinforcement.
"""
